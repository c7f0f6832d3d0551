"""Sessions, objects, files, tasks."""

from __future__ import annotations

import msgspec
import pytest
from llmos.syscalls.types import BufferOut, Data, Grant, GrantTo, Handle, Limits, NewHandle, Right
from llmos.syscalls.wire import MessageKind, pack, unpack


def test_rights_survive_the_wire_as_a_set() -> None:
    value = NewHandle(handle=Handle(4), rights=frozenset({Right.READ, Right.DUP}))
    body = unpack(pack(MessageKind.REPLY, 1, "", value)).body
    assert sorted(body["rights"]) == ["dup", "read"]
    assert msgspec.convert(body, NewHandle) == value


def test_no_rights_and_all_rights_of_a_grant_differ() -> None:
    assert GrantTo(handle=Handle(1)).rights is None
    assert msgspec.convert({"handle": 1, "rights": []}, GrantTo).rights == frozenset()
    assert Grant(handle=Handle(1), kind="system", name="system", rights=frozenset()).rights == frozenset()


def test_data_is_bytes_or_a_place_in_a_buffer() -> None:
    small = msgspec.convert({"data": b"x", "eof": True}, Data, builtin_types=(bytes,))
    large = msgspec.convert({"data": {"type": "buffer", "buffer": 5, "length": 9}, "eof": False, "path": "/p"}, Data)
    assert small.data == b"x"
    assert large.data == BufferOut(buffer=Handle(5), length=9)


@pytest.mark.parametrize("name", Limits.__struct_fields__)
def test_a_limit_is_a_natural_number_and_zero_by_default(name: str) -> None:
    assert getattr(Limits(), name) == 0
    with pytest.raises(msgspec.ValidationError, match=name):
        msgspec.convert({name: -1}, Limits)

"""Errors keep their code and fields across the wire, whatever the other side sends."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from llmos.syscalls import errors
from llmos.syscalls.errors import BadArgument, DriverFailed, Internal, LlmosError, NoDeviceMemory, NotFound, from_wire
from llmos.syscalls.types import Kind
from llmos.syscalls.wire import error_frames, unpack

CODES = {
    1: "Internal", 2: "NotSupported", 3: "NoResources", 10: "BadArgument", 11: "BadHandle", 12: "WrongKind",
    13: "BadCall", 14: "TooLarge", 20: "BadState", 21: "TimedOut", 22: "Busy", 23: "Cancelled", 24: "PeerGone",
    25: "NotFound", 26: "Exists", 27: "Unavailable", 28: "OverQuota", 29: "Expired", 30: "Denied",
    40: "NoDeviceMemory", 41: "DeviceFault", 42: "DriverFailed", 43: "BadModel", 50: "NotDirectory", 51: "ReadOnly",
    52: "NoSpace", 53: "Conflict",
}  # fmt: skip


def test_codes_and_names_never_change() -> None:
    assert {code: cls.__name__ for code, cls in errors.by_code().items()} == CODES


def test_the_table_handed_out_is_a_copy() -> None:
    errors.by_code().clear()
    assert errors.by_code()


def test_what_any_call_may_answer() -> None:
    assert sorted(cls.code for cls in errors.COMMON) == [1, 10, 11, 12, 13, 14, 21, 23, 28, 30]


def test_a_code_belongs_to_one_error() -> None:
    with pytest.raises(TypeError, match="error code 25 of Second already belongs to NotFound"):

        class Second(LlmosError, code=25):
            pass


def test_fields_are_keywords_with_defaults() -> None:
    error = NoDeviceMemory("no room", needed=5)
    assert error.fields() == {"needed": 5, "free": 0, "evictable": 0, "by_whom": ""}
    with pytest.raises(TypeError, match=r"NoDeviceMemory has no field 'size'; it has needed, free, evictable, by_whom"):
        NoDeviceMemory("no room", size=5)


def test_the_text_is_the_given_one_or_the_general_one() -> None:
    assert str(NotFound("no /models/x; `llmos ls` shows what there is")).startswith("no /models/x")
    assert str(NotFound()) == "Nothing of that name exists."


@pytest.mark.parametrize("cls", errors.by_code().values())
def test_every_error_survives_the_wire(cls: type[LlmosError]) -> None:
    fields = {name: 7 if type(getattr(cls, name)) is int else "seven" for name in cls.field_names}
    error = cls("what, which, try", reasons=[{"code": "x", "numbers": {"n": 1}}], request="r1", **fields)
    again = from_wire(unpack(error_frames(3, error)).body)
    assert type(again) is cls
    assert again.to_wire() == error.to_wire()
    assert again.fields() == fields


def test_every_error_is_found_by_its_name() -> None:
    for cls in errors.by_code().values():
        assert errors.by_name(cls.__name__) is cls
    with pytest.raises(KeyError):
        errors.by_name("Nonsense")


def test_a_newer_peer_is_readable() -> None:
    body = NotFound("gone").to_wire()
    assert type(from_wire({**body, "code": 999})) is Internal
    assert from_wire({**body, "fields": {"from_the_future": 1}, "more": 2}).fields() == {}


def test_fields_of_another_type_keep_their_default() -> None:
    body = DriverFailed("x", restarts=3).to_wire()
    body["fields"] = {"restarts": "many", "cause": "bus error"}
    assert from_wire(body).fields() == {"restarts": 0, "cause": "bus error"}


@given(st.dictionaries(st.sampled_from(["code", "message", "fields", "reasons", "request", "name"]), strategies.PLAIN))
def test_whatever_a_broken_peer_sends_is_an_error(body: dict[str, Any]) -> None:
    error = from_wire(body)
    assert from_wire(unpack(error_frames(1, error)).body).to_wire() == error.to_wire()


@given(st.sampled_from(sorted(errors.by_code())), strategies.PLAIN, strategies.PLAIN)
def test_whatever_stands_in_fields_and_reasons(code: int, fields: Any, reasons: Any) -> None:
    assert from_wire({"code": code, "fields": fields, "reasons": reasons}).code == code


@pytest.mark.parametrize(
    "error",
    [
        BadArgument("x" * 20_000_000, name="n" * 20_000_000),
        NotFound("a file name that is no text: \udcff"),
        NotFound("x", request="r" * 9_000_000),
        NotFound("x", reasons=[{"text": "y" * 9_000_000, "deep": [{"a": ("z" * 9_000_000,)}], "n": 2**80, "o": None}]),
        NotFound("x", reasons=[{"code": "c"}] * 5_000_000),
        NotFound("x", reasons=[{"k" * 9_000_000: 1.5}]),
    ],
    ids=["long", "no-text", "request", "reasons", "many", "keys"],
)
def test_any_error_can_be_sent(error: LlmosError) -> None:
    frames = error_frames(1, error)
    assert sum(map(len, frames)) < 100_000
    assert type(from_wire(unpack(frames).body)) is type(error)


def test_what_an_error_quotes_becomes_plain() -> None:
    quoted = {"kind": Kind.MODEL, "map": MappingProxyType({1: True}), "text": "\u00e4", "low": -(2**63), "raw": b"x"}
    (told,) = NotFound("x", reasons=[quoted]).to_wire()["reasons"]
    assert told == {"kind": "model", "map": {"1": True}, "text": "\u00e4", "low": -(2**63), "raw": "b'x'"}
    assert type(told["kind"]) is str and type(told["map"]) is dict


def test_what_was_cut_is_said() -> None:
    assert NotFound("x" * 5000).to_wire()["message"].endswith("x... (5000 characters)")

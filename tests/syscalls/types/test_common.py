"""What holds for every type: frozen, keyword-only, and strict or lenient by the way it travels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.syscalls import calls, driver, types
from llmos.syscalls.spec import SYSCALLS
from llmos.syscalls.types import Argument, BufferOut, BufferRef, Event, LimitsOut, Reason, Tensor, TensorOut, Value
from llmos.syscalls.wire import Reply
from msgspec import inspect as mi
from strategies import of

assert calls.__all__ and driver.HOST_CALLS


def below(base: type) -> list[type[Any]]:
    children: list[type[Any]] = base.__subclasses__()
    return [kind for child in children for kind in (child, *below(child))]


LENIENT_TWINS = [BufferOut, TensorOut, LimitsOut]
VALUES = [*below(Value), *LENIENT_TWINS]
ARGUMENTS = [kind for kind in below(Argument) if kind not in LENIENT_TWINS]


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_results_and_events_ignore_unknown_fields(kind: type[Any], data: st.DataObject) -> None:
    body = data.draw(of(kind))
    assert msgspec.convert({**body, "from_the_future": 1}, kind) == msgspec.convert(body, kind)


@pytest.mark.parametrize("kind", ARGUMENTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_arguments_refuse_unknown_fields(kind: type[Any], data: st.DataObject) -> None:
    body = data.draw(of(kind))
    with pytest.raises(msgspec.ValidationError, match="unknown field `from_the_future`"):
        msgspec.convert({**body, "from_the_future": 1}, kind)


def objects_in(node: mi.Type, seen: set[type]) -> Iterator[mi.StructType]:
    """All Structs that a type holds, at any depth."""
    if isinstance(node, mi.StructType) and node.cls not in seen:
        seen.add(node.cls)
        yield node
        for field in node.fields:
            yield from objects_in(field.type, seen)
    for name in ("type", "item_type", "key_type", "value_type"):
        if isinstance(inner := getattr(node, name, None), mi.Type):
            yield from objects_in(inner, seen)
    for inner in (*getattr(node, "types", ()), *getattr(node, "item_types", ())):
        yield from objects_in(inner, seen)


@pytest.mark.parametrize("spec", SYSCALLS.values(), ids=lambda spec: spec.name)
def test_a_result_is_lenient_and_a_request_strict_at_every_depth(spec: Any) -> None:
    for result in (spec.result, spec.item or int, Reply):
        for node in objects_in(mi.type_info(result), set()):
            assert not node.forbid_unknown_fields, f"{spec.name} answers with the strict {node.cls.__name__}"
    for node in objects_in(mi.type_info(spec.cls), set()):
        assert node.forbid_unknown_fields, f"{spec.name} takes the lenient {node.cls.__name__}"


@pytest.mark.parametrize("kind", [*VALUES, *ARGUMENTS], ids=lambda kind: str(kind))
def test_every_type_is_frozen_and_keyword_only(kind: type[Any]) -> None:
    config = kind.__struct_config__
    assert config.frozen
    if kind.__struct_fields__:
        with pytest.raises(TypeError):
            kind(None)


@pytest.mark.parametrize(("twin", "strict"), [(BufferOut, BufferRef), (TensorOut, Tensor), (LimitsOut, types.Limits)])
def test_a_lenient_twin_has_the_fields_of_the_strict_type(twin: type[Any], strict: type[Any]) -> None:
    assert set(twin.__struct_fields__) == set(strict.__struct_fields__)
    assert twin.__struct_config__.tag == strict.__struct_config__.tag


def test_defaults_are_not_shared() -> None:
    Event(kind="x").fields["a"] = 1
    assert Event(kind="x").fields == {}


def test_numbers_of_a_reason_keep_their_type() -> None:
    reason = msgspec.convert({"code": "c", "text": "t", "numbers": {"i": 1, "f": 1.5, "s": "x"}}, Reason)
    assert [type(number) for number in reason.numbers.values()] == [int, float, str]


def test_every_type_is_exported() -> None:
    assert all(hasattr(types, name) for name in types.__all__)
    kinds: list[type[Any]] = [*VALUES, *ARGUMENTS]
    declared = {kind.__name__ for kind in kinds if kind.__module__.startswith("llmos.syscalls.types")}
    assert declared <= set(types.__all__)


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "numbers"),
    [
        ("float32", [2, 1], b"\0\0\0?\0\0\x80?", [[0.5], [1.0]]), ("float16", [2], b"\x008\0<", [0.5, 1.0]),
        ("bfloat16", [2], b"\0?\x80?", [0.5, 1.0]), ("int64", [1], b"\xff" * 8, [-1]), ("int32", [1], b"\2\0\0\0", [2]),
        ("int8", [2], b"\xff\1", [-1, 1]), ("uint8", [], b"\x07", 7), ("bool", [1, 2], b"\0\1", [[False, True]]),
        ("float32", [0, 3], b"", []), ("float32", [2, 0], b"", [[], []]),
    ],
)  # fmt: skip
def test_the_numbers_of_a_tensor(dtype: str, shape: list[int], data: bytes, numbers: Any) -> None:
    assert TensorOut(dtype=dtype, shape=shape, data=data).tolist() == numbers


def test_numbers_in_a_buffer_have_to_be_read_first() -> None:
    with pytest.raises(ValueError, match="shared buffer"):
        Tensor(dtype="int8", shape=[1], data=BufferRef(buffer=types.Handle(1), length=1)).tolist()

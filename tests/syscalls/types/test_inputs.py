"""Inputs are told apart by their tag."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from llmos.syscalls.types import (
    Audio, BufferRef, Chat, Handle, Image, Input, Parts, Table, Tensor, Tensors, Text, Tokens
)  # fmt: skip

SAMPLES: list[tuple[dict[str, Any], Any]] = [
    ({"type": "text", "text": "hi"}, Text(text="hi")),
    ({"type": "tokens", "ids": [1, 2]}, Tokens(ids=[1, 2])),
    (
        {"type": "chat", "messages": [{"role": "user", "content": "hi"}]},
        Chat(messages=[{"role": "user", "content": "hi"}]),
    ),
    (
        {
            "type": "parts",
            "parts": [
                {"type": "text", "text": "what is this?"},
                {"type": "image", "data": b"\x89PNG"},
                {"type": "audio", "data": {"type": "buffer", "buffer": 7, "length": 9}},
                {"type": "table", "columns": ["a"], "rows": [[1], ["x"]]},
            ],
        },
        Parts(
            parts=[
                Text(text="what is this?"),
                Image(data=b"\x89PNG"),
                Audio(data=BufferRef(buffer=Handle(7), length=9)),
                Table(columns=["a"], rows=[[1], ["x"]]),
            ]
        ),
    ),
    (
        {"type": "tensors", "named": {"x": {"dtype": "float32", "shape": [1], "data": b"\0\0\0\0"}}},
        Tensors(named={"x": Tensor(dtype="float32", shape=[1], data=b"\0\0\0\0")}),
    ),
]


@pytest.mark.parametrize(("body", "value"), SAMPLES, ids=lambda sample: type(sample).__name__)
def test_an_input_is_read_and_written(body: dict[str, Any], value: Any) -> None:
    assert msgspec.convert(body, Input, builtin_types=(bytes,)) == value
    again = msgspec.to_builtins(value, builtin_types=(bytes,))
    assert msgspec.convert(again, Input, builtin_types=(bytes,)) == value


@pytest.mark.parametrize("ids", [[-1], [1.5], ["1"], "12", [None]])
def test_token_ids_are_natural_numbers(ids: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.ids"):
        msgspec.convert({"type": "tokens", "ids": ids}, Input)

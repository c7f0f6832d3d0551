"""Tensors of KServe's protocol, in JSON and as bytes."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Tensor, TensorOut
from llmos.userland.gateway.native.tensors import DTYPES, HEADER, inputs_of, outputs_of, parsed

RANGES = {"INT64": 63, "INT32": 31, "INT8": 7}


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def one(datatype: str, shape: list[int], data: Any) -> Tensor:
    return inputs_of(parsed(body({"name": "x", "shape": shape, "datatype": datatype, "data": data}), None))["x"]


def out(tensor: Tensor) -> TensorOut:
    return TensorOut(dtype=tensor.dtype, shape=tensor.shape, data=tensor.data)


@given(st.data(), st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_what_goes_in_comes_out(data: st.DataObject, datatype: str, shape: list[int]) -> None:
    count = math.prod(shape)
    if datatype == "BOOL":
        numbers: Any = st.booleans()
    elif datatype == "UINT8":
        numbers = st.integers(0, 255)
    elif datatype in RANGES:
        numbers = st.integers(-(1 << RANGES[datatype]), (1 << RANGES[datatype]) - 1)
    else:
        numbers = st.integers(-128, 128).map(float)  # exact in all of them
    given_numbers = data.draw(st.lists(numbers, min_size=count, max_size=count))
    tensor = one(datatype, shape, given_numbers)
    call = parsed(body({"name": "x", "shape": [0], "datatype": "FP32", "data": []}), None)
    (shown,), binary = outputs_of(call, {"x": out(tensor)})
    assert shown == {"name": "x", "shape": shape, "datatype": datatype, "data": given_numbers} and not binary


def test_nested_lists_are_flat_numbers() -> None:
    assert one("INT32", [2, 2], [[1, 2], [3, 4]]).data == one("INT32", [2, 2], [1, 2, 3, 4]).data


@pytest.mark.parametrize(
    ("number", "bits"),
    [
        (1.0, 0x3F80),
        (3.14159, 0x4049),
        (1.00390625, 0x3F80),
        (1.01171875, 0x3F82),
        (float("inf"), 0x7F80),
        (-2.0, 0xC000),
    ],
)
def test_bfloat16_is_rounded_to_the_nearest(number: float, bits: int) -> None:
    call = parsed(b'{"inputs":[{"name":"x","shape":[1],"datatype":"BF16","data":[0]}]}', None)
    named = msgspec.structs.replace(call.inputs[0], data=[number])
    tensor = inputs_of(msgspec.structs.replace(call, inputs=[named]))["x"]
    assert tensor.data == struct.pack("<H", bits)


def test_bytes_behind_the_json() -> None:
    first, second = struct.pack("<2f", 1, 2), b"\x07"
    head = body(
        {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        {"name": "c", "shape": [1], "datatype": "INT32", "data": [5]},
        {"name": "b", "shape": [1], "datatype": "UINT8", "parameters": {"binary_data_size": 1}},
        outputs=[{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}],
    )
    call = parsed(head + first + second, str(len(head)))
    tensors = inputs_of(call)
    assert (tensors["a"].data, tensors["b"].data, tensors["c"].tolist()) == (first, second, [5])
    shown, binary = outputs_of(call, {name: out(tensor) for name, tensor in tensors.items()})
    assert binary == [second]
    assert shown[0] == {"name": "b", "shape": [1], "datatype": "UINT8", "parameters": {"binary_data_size": 1}}
    assert shown[1]["data"] == [1.0, 2.0]


def test_all_outputs_as_bytes() -> None:
    call = parsed(
        body({"name": "a", "shape": [1], "datatype": "INT8", "data": [1]}, parameters={"binary_data_output": True}),
        None,
    )
    shown, binary = outputs_of(call, {"a": out(inputs_of(call)["a"])})
    assert binary == [b"\x01"] and "data" not in shown[0]


@pytest.mark.parametrize(
    ("raw", "head", "says"),
    [
        (b"{", None, "not JSON"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":' + b"[" * 100_000, None, "not JSON"),
        (b'{"inputs": 5}', None, "inputs"),
        (b'{"inputs": []}', None, "empty"),
        (b'{"inputs": []}', "99", HEADER),
        (b'{"inputs": []}', "-1", HEADER),
        (b'{"inputs": []}', "\u0661", HEADER),
        (body({"name": "x", "shape": [1], "datatype": "FP8", "data": [1]}), None, "datatype"),
        (body({"name": "x", "shape": [2], "datatype": "FP32", "data": [1]}), None, "its shape takes 2"),
        (body({"name": "x", "shape": [-1], "datatype": "FP32", "data": [1]}), None, "shape"),
        (body({"name": "x", "shape": [1] * 40, "datatype": "FP32", "data": [1]}), None, "shape"),
        (body({"name": "x", "shape": [1], "datatype": "INT8", "data": [300]}), None, "does not fit int8"),
        (body({"name": "x", "shape": [1], "datatype": "INT8", "data": ["a"]}), None, "does not fit int8"),
        (body({"name": "x", "shape": [1], "datatype": "FP16", "data": ["a"]}), None, "does not fit float16"),
        (body({"name": "x", "shape": [1], "datatype": "BOOL", "data": [2]}), None, "true and false"),
        (body({"name": "x", "shape": [1], "datatype": "INT8"}), None, "has 0 numbers"),
        (body(*[{"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}] * 2), None, "twice"),
        (
            body({"name": "x", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 4}}),
            None,
            "4 bytes are announced",
        ),
        (
            body({"name": "x", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": "1"}}),
            None,
            "'1' bytes",
        ),
    ],
)
def test_what_is_wrong_is_named(raw: bytes, head: str | None, says: str) -> None:
    with pytest.raises(BadArgument, match=says.replace("[", r"\[")):
        inputs_of(parsed(raw, head))


def test_lists_that_are_nested_too_deep() -> None:
    deep = "[" * 100 + "1" + "]" * 100
    raw = f'{{"inputs":[{{"name":"x","shape":[1],"datatype":"INT8","data":{deep}}}]}}'.encode()
    with pytest.raises(BadArgument, match="nested deeper"):
        inputs_of(parsed(raw, None))


def test_an_output_that_is_not_there() -> None:
    call = parsed(body({"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}, outputs=[{"name": "y"}]), None)
    with pytest.raises(BadArgument, match="no output 'y'; there are x"):
        outputs_of(call, {"x": out(inputs_of(call)["x"])})


def test_a_number_without_dimensions() -> None:
    tensor = one("FP32", [], [2.5])
    call = parsed(body({"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}), None)
    (shown,), _ = outputs_of(call, {"x": out(tensor)})
    assert shown["shape"] == [] and shown["data"] == [2.5]

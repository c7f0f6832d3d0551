"""Tensors as KServe's protocol has them, in JSON or as bytes behind it. Pure."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Tensor, TensorOut

HEADER = "Inference-Header-Content-Length"
"""Bytes of JSON before the binary tensors of a body."""

DTYPES = {
    "FP32": "float32", "FP16": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32", "INT8": "int8",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_CODES = {"float32": "f", "int64": "q", "int32": "i", "int8": "b", "uint8": "B", "bool": "B"}
_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}
_MOST_DIMENSIONS = 32


class Named(Struct, frozen=True, kw_only=True):
    """A tensor of a request; `data` is flat or nested, or its bytes stand behind the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class Wanted(Struct, frozen=True, kw_only=True):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Call(Struct, frozen=True, kw_only=True):
    """The body of `infer`; `binary` is what stands behind its JSON."""

    inputs: list[Named]
    outputs: list[Wanted] = []
    id: str = ""
    parameters: dict[str, Any] = {}
    binary: bytes = b""


def parsed(body: bytes, head: str | None) -> Call:
    """The body of a request; `head` is the value of its header `HEADER`.

    Raises:
        BadArgument: no such body.
    """
    size = len(body)
    if head is not None:
        size = int(head) if head.isascii() and head.isdigit() else -1
        if not 0 <= size <= len(body):
            raise BadArgument(f"{HEADER} is {head[:40]!r}; the body has {len(body)} bytes", name=HEADER, got=head[:40])
    try:
        call = msgspec.json.decode(body[:size], type=Call)
    except msgspec.ValidationError as error:
        raise BadArgument(f"the body is no inference request: {error}", name="body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadArgument(f"the body is not JSON: {error}", name="body", want="JSON") from None
    return msgspec.structs.replace(call, binary=body[size:])


def inputs_of(call: Call) -> dict[str, Tensor]:
    """The tensors of a request.

    Raises:
        BadArgument: a datatype that is not offered, a shape that does not fit the data, numbers out of range.
    """
    found: dict[str, Tensor] = {}
    at = 0
    for named in call.inputs:
        place = f"inputs[{len(found)}]"
        if named.name in found:
            raise BadArgument(f"{place}: the input {named.name!r} is there twice", name=place, got=named.name[:80])
        dtype = _dtype(named.datatype, place)
        count = _count(named.shape, place)
        size = named.parameters.get("binary_data_size")
        if size is None:
            data = _packed(named.data, dtype, count, place)
        else:
            data = call.binary[at : at + size] if isinstance(size, int) and size >= 0 else b""
            at += len(data)
            if len(data) != size or size != count * _SIZES[dtype]:
                said = f"{place}: {size!r} bytes are announced and {len(data)} there; its shape takes "
                raise BadArgument(f"{said}{count * _SIZES[dtype]}", name=place, got=repr(size)[:40])
        found[named.name] = Tensor(dtype=dtype, shape=named.shape, data=data)
    if not found:
        raise BadArgument("inputs is empty; give a tensor", name="inputs")
    return found


def outputs_of(call: Call, results: Mapping[str, TensorOut]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The outputs of an answer, all or those that were asked for, and the bytes that stand behind its JSON.

    Raises:
        BadArgument: there is no output of that name.
    """
    wanted = call.outputs or [Wanted(name=name) for name in results]
    shown: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for each in wanted:
        tensor = results.get(each.name)
        if tensor is None:
            known = ", ".join(results) or "none"
            said = f"there is no output {each.name!r}; there are {known}"
            raise BadArgument(said, name="outputs", got=each.name[:80], want=known)
        described: dict[str, Any] = {"name": each.name, "shape": tensor.shape, "datatype": NAMES[tensor.dtype]}
        as_bytes = each.parameters.get("binary_data", call.parameters.get("binary_data_output", False))
        if as_bytes and isinstance(tensor.data, bytes):
            described["parameters"] = {"binary_data_size": len(tensor.data)}
            binary.append(tensor.data)
        else:
            described["data"] = list(_flat(tensor.tolist(), each.name)) if tensor.shape else [tensor.tolist()]
        shown.append(described)
    return shown, binary


def _dtype(name: str, place: str) -> str:
    if name not in DTYPES:
        known = ", ".join(DTYPES)
        said = f"{place}.datatype is {name[:40]!r}; expected {known}"
        raise BadArgument(said, name=f"{place}.datatype", got=name[:40], want=known)
    return DTYPES[name]


def _count(shape: list[int], place: str) -> int:
    if len(shape) > _MOST_DIMENSIONS or any(size < 0 for size in shape):
        raise BadArgument(f"{place}.shape is {str(shape)[:80]}; expected sizes", name=f"{place}.shape")
    return math.prod(shape)


def _packed(data: list[Any] | None, dtype: str, count: int, place: str) -> bytes:
    flat = list(_flat(data or [], place))
    if len(flat) != count:
        raise BadArgument(f"{place}.data has {len(flat)} numbers; its shape takes {count}", name=f"{place}.data")
    try:
        if dtype == "float16":
            return struct.pack(f"<{count}e", *flat)
        if dtype == "bfloat16":
            return _upper_halves(array("f", flat))
        if dtype == "bool" and not all(item in (0, 1) for item in flat):
            raise TypeError("expected true and false")
        return array(_CODES[dtype], flat).tobytes()
    except (TypeError, OverflowError, struct.error) as error:
        raise BadArgument(f"{place}.data does not fit {dtype}: {error}", name=f"{place}.data") from None


def _upper_halves(numbers: array[float]) -> bytes:
    """float32 rounded to bfloat16, to the nearest and half to even; what is no number stays none."""
    halves = array("H")
    for bits in array("I", numbers.tobytes()):
        is_nan = bits & 0x7FFFFFFF > 0x7F800000
        halves.append((bits >> 16) | 0x40 if is_nan else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    return halves.tobytes()


def _flat(data: Any, place: str, depth: int = 1) -> Iterator[Any]:
    """The numbers of nested lists, in their order. Raises BadArgument."""
    if depth > _MOST_DIMENSIONS:
        raise BadArgument(f"{place}: lists are nested deeper than {_MOST_DIMENSIONS}", name=place)
    for item in data:
        if isinstance(item, list):
            yield from _flat(item, place, depth + 1)
        else:
            yield item

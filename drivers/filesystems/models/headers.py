"""The header of a safetensors file, read by hand: a file is judged before any library maps it.

Format (huggingface/safetensors, README): 8 bytes little-endian length N, N bytes of JSON, then the tensors' bytes. The
tensors fill the rest of the file without holes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_HEADER = 32 << 20
"""Bytes of JSON; a file with 100 000 tensors needs about 12 MiB."""
BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
DTYPES: Mapping[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
"""Names that people and torch use."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})


class BadHeader(Exception):
    """The file is not a whole safetensors file; the text says why."""


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """`dtype` is the format's own name; `bytes` is what the tensor takes in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> tuple[TensorHeader, ...]:
    """The tensors of a file, checked against its size.

    Raises:
        BadHeader: truncated, not safetensors, offsets that leave the file, overlap or leave holes, sizes that do not
            fit dtype and shape.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size < 8:
            raise BadHeader(f"is only {size} bytes long, less than the length of its header")
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise BadHeader(f"announces a header of {length} bytes (at most {MAX_HEADER}): not a safetensors file")
        if 8 + length > size:
            raise BadHeader(f"is truncated: its header ends at byte {8 + length}, the file at {size}")
        raw = file.read(length)
    return _tensors(_parse(raw), size - 8 - length)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise BadHeader(f"has a header that is not JSON ({error})") from None
    if not isinstance(header, dict) or not raw.startswith(b"{"):
        raise BadHeader("has a header that is not a JSON object")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise BadHeader("has metadata that is not a map of texts")
    return header


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _tensors(header: Mapping[str, Any], size: int) -> tuple[TensorHeader, ...]:
    found = []
    for name, entry in header.items():
        if name != "__metadata__":
            found.append(_tensor(name, entry, size))
    found.sort(key=lambda item: item[:2])
    end = 0
    for begin, after, tensor in found:
        if begin != end:
            what = "a hole" if begin > end else "an overlap"
            raise BadHeader(f"has {what} before the tensor {tensor.name} at {begin}")
        end = after
    if end != size:
        raise BadHeader(f"holds {size} bytes of tensors, its header describes {end}: truncated or appended to")
    return tuple(tensor for _, _, tensor in found)


def _tensor(name: str, entry: Any, size: int) -> tuple[int, int, TensorHeader]:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
            pass
        case _:
            raise BadHeader(f"describes the tensor {name} without dtype, shape and data_offsets")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise BadHeader(f"gives the tensor {name} a shape or offsets that are not natural numbers")
    if begin > end:
        raise BadHeader(f"lets the tensor {name} end at {end}, before its start at {begin}")
    if end > size:
        raise BadHeader(f"is truncated: the tensor {name} ends at byte {end} of the data, the file holds {size}")
    tensor = TensorHeader(name, dtype, tuple(shape), end - begin)
    # A dtype that is newer than this table is left to the device to accept or refuse.
    if dtype in BITS and (tensor.elements * BITS[dtype] + 7) // 8 != tensor.bytes:
        raise BadHeader(f"gives the tensor {name} {tensor.bytes} bytes, which does not fit {dtype} {shape}")
    return begin, end, tensor

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.drivers.filesystems.models.headers import BITS, MAX_HEADER, BadHeader, read_header
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save


def whole(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: list[Any], dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_file_of_the_library_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    arrays = {"a": np.ones((2, 3), np.float16), "b": np.zeros((5,), np.int64), "empty": np.zeros((0, 4), np.float32)}
    path.write_bytes(save(arrays, metadata={"format": "pt"}))
    found = {tensor.name: (tensor.dtype, tensor.shape, tensor.bytes, tensor.elements) for tensor in read_header(path)}
    assert found == {"a": ("F16", (2, 3), 12, 6), "b": ("I64", (5,), 40, 5), "empty": ("F32", (0, 4), 0, 0)}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "only 0 bytes"),
        (b"1234567", "only 7 bytes"),
        ((MAX_HEADER + 1).to_bytes(8, "little"), "not a safetensors file"),
        (b"PK\x03\x04" + bytes(100), "not a safetensors file"),
        ((50).to_bytes(8, "little") + b"{}", "truncated"),
        (whole(b"{]"), "not JSON"),
        (whole(b"[" * 100_000), "not JSON"),
        (whole(b"\xff\xfe"), "not JSON"),
        (whole([]), "not a JSON object"),
        (whole(b' {"a": 1}'), "not a JSON object"),
        (whole(b'{"a": 1, "a": 2}'), "twice"),
        (whole({"__metadata__": {"a": 1}}), "metadata"),
        (whole({"a": 5}), "without dtype"),
        (whole({"a": {"dtype": "U8", "shape": [1]}}), "without dtype"),
        (whole({"a": entry(0, 1, [-1])}, b"x"), "natural numbers"),
        (whole({"a": entry(0, 1, [1.0])}, b"x"), "natural numbers"),
        (whole({"a": entry(0, 1, [True])}, b"x"), "natural numbers"),
        (whole({"a": entry(0, 2, [2])}, b"x"), "truncated"),
        (whole({"a": entry(1, 0, [1])}, b"x"), "before its start"),
        (whole({"a": entry(0, 2, [3])}, b"xx"), "does not fit"),
        (whole({"a": entry(0, 2, [1], "F32")}, b"xx"), "does not fit"),
        (whole({"a": entry(0, 1, [1]), "b": entry(2, 3, [1])}, b"xxx"), "a hole"),
        (whole({"a": entry(0, 2, [2]), "b": entry(1, 3, [2])}, b"xxx"), "an overlap"),
        (whole({"a": entry(0, 1, [1])}, b"xx"), "appended"),
        (whole({}, b"x"), "appended"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadHeader, match=why):
        read_header(path)


def test_a_newer_dtype_is_left_to_the_device(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(whole({"a": entry(0, 3, [7], "F3_NEW")}, b"xxx"))
    assert read_header(path)[0].dtype == "F3_NEW"


TENSORS = st.lists(st.tuples(st.sampled_from(sorted(BITS)), st.lists(st.integers(0, 3), max_size=3)), max_size=4)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with a few bytes, numbers or its length changed."""
    header: dict[str, Any] = {}
    size = 0
    for place, (dtype, shape) in enumerate(draw(TENSORS)):
        length = int(np.prod(shape)) * BITS[dtype] // 8
        header[f"t{place}"] = entry(size, size + length, [*shape], dtype)
        size += length
    for name in draw(st.lists(st.sampled_from([*header]), max_size=2)) if header else []:
        where = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        header[name][where] = draw(
            st.sampled_from(["F32", "U8", "nothing"]) if where == "dtype" else st.lists(st.integers(-1, 20), max_size=3)
        )
    content = bytearray(whole(header, bytes(size)))
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=2)):
        content[place] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)) | st.just(len(content)))])


@settings(max_examples=400)
@given(mutated() | st.binary(max_size=64))
def test_what_is_accepted_the_library_accepts_and_the_other_way(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(content)
    try:
        ours = {tensor.name: (tensor.dtype, [*tensor.shape]) for tensor in read_header(path)}
    except BadHeader:
        ours = None
    try:
        theirs = {name: (tensor["dtype"], tensor["shape"]) for name, tensor in deserialize(content)}
    except SafetensorError:
        theirs = None
    if ours is not None and any(dtype not in BITS for dtype, _ in ours.values()):
        return  # a dtype that neither knows is left to the device
    assert ours == theirs

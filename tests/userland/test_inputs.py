"""Plain Python becomes the input types: text, media, messages, parts, tensors; files are read where they are."""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import Any

import pytest

from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, NotFound
from llmos.syscalls.types import Audio, Chat, Data, File, Handle, Image, Parts, Table, Tensor, Tensors, Text, Tokens
from llmos.userland.inputs import media, of_namespace, tensor, to_input

PNG, WAV = b"\x89PNG\r\n\x1a\nrest", b"RIFF\x10\0\0\0WAVEfmt "


def test_text_ids_and_messages() -> None:
    assert to_input("a") == Text(text="a")
    assert to_input([1, 2]) == to_input((1, 2)) == Tokens(ids=[1, 2])
    assert to_input([]) == Tokens(ids=[])
    assert to_input([{"role": "user", "content": "a"}]) == Chat(messages=[{"role": "user", "content": "a"}])
    assert to_input(Text(text="a")) == Text(text="a")


def test_media_and_parts(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(PNG)
    picture, sound = Image(data=PNG), Audio(data=WAV)
    assert to_input(PNG) == to_input(tmp_path / "x.png") == to_input(picture) == Parts(parts=[picture])
    assert to_input(bytearray(WAV)) == Parts(parts=[sound])
    table = Table(columns=["a"], rows=[[1]])
    mixed = to_input(["what?", tmp_path / "x.png", WAV, Text(text="b"), table])
    assert mixed == Parts(parts=[Text(text="what?"), picture, sound, Text(text="b"), table])
    assert to_input(["a", "b"]) == Parts(parts=[Text(text="a"), Text(text="b")])
    with pytest.raises(NotFound, match=r"gone\.png"):
        to_input(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\xff\xd8\xff\xe0", Image), (b"GIF89a", Image), (b"BM", Image), (b"II*\0", Image), (b"P6 ", Image),
        (b"RIFF\0\0\0\0WEBP", Image), (b"fLaC", Audio), (b"OggS", Audio), (b"ID3", Audio), (b"\xff\xfb\x90", Audio),
    ],
)  # fmt: skip
def test_pictures_and_sounds_are_told_apart(start: bytes, kind: type) -> None:
    assert media(start) == kind(data=start)


@pytest.mark.parametrize("value", [None, 3, {}, {1: 2}, [True], [1, {}], {"a": object()}, [object()]])
def test_what_is_no_input_is_refused(value: Any) -> None:
    with pytest.raises(BadArgument):
        to_input(value)


def test_unknown_bytes_are_told_how_to_be_said() -> None:
    with pytest.raises(BadArgument, match=r"Image\(data="):
        to_input(b"bytes")


@pytest.mark.parametrize(
    ("value", "dtype", "shape", "data"),
    [
        ([[1, 2], [3, 4]], "int64", [2, 2], struct.pack("<4q", 1, 2, 3, 4)),
        ([1, 2.5], "float32", [2], struct.pack("<2f", 1, 2.5)), ([[True], [False]], "bool", [2, 1], b"\1\0"),
        (7, "int64", [], struct.pack("<q", 7)), ([], "float32", [0], b""), ([[], []], "float32", [2, 0], b""),
        (array("f", [0.5]), "float32", [1], struct.pack("<f", 0.5)),
        (array("d", [0.5, 1]), "float32", [2], struct.pack("<2f", 0.5, 1)),
        (array("b", [-1]), "int8", [1], b"\xff"), (b"ab", "uint8", [2], b"ab"),
        (memoryview(array("i", range(6))).cast("B").cast("i", (2, 3)), "int32", [2, 3], struct.pack("<6i", *range(6))),
        (Tensor(dtype="int8", shape=[1], data=b"\1"), "int8", [1], b"\1"),
    ],
)  # fmt: skip
def test_tensors(value: Any, dtype: str, shape: list[int], data: bytes) -> None:
    assert tensor(value) == Tensor(dtype=dtype, shape=shape, data=data)
    assert to_input({"x": value}) == Tensors(named={"x": tensor(value)})


@pytest.mark.parametrize("value", [[[1], [2, 3]], [1, [2]], [[1], 2], ["a"], "text", array("L", [1]), [2**70], [None]])
def test_what_is_no_tensor_is_refused(value: Any) -> None:
    with pytest.raises(BadArgument):
        tensor(value)


def run(content: Any, content_of: dict[str, bytes]) -> tuple[Any, list[str]]:
    """Run the flow against files that are read in parts of four bytes; the result and the calls made."""
    flow, seen, answer = of_namespace(content), [], None
    try:
        while True:
            call: Any = flow.send(answer).call
            seen.append(type(call).__name__)
            if isinstance(call, calls.OpenFile):
                path = call.path
                answer = File(handle=Handle(9), path=path, bytes=len(content_of[path]), version="")
            elif isinstance(call, calls.ReadFile):
                part = content_of[path][call.offset : call.offset + 4]
                answer = Data(data=part, eof=call.offset + 4 >= len(content_of[path]))
            else:
                answer = None
    except StopIteration as stop:
        return stop.value, seen


def test_paths_of_the_namespace_are_read() -> None:
    parts = Parts(parts=[Text(text="a"), Image(path="/files/x.png"), Audio(data=WAV)])
    found, seen = run(parts, {"/files/x.png": PNG})
    assert found == Parts(parts=[Text(text="a"), Image(data=PNG), Audio(data=WAV)])
    assert seen == ["OpenFile", *["ReadFile"] * 3, "CloseHandle"]
    assert run(Image(path="/files/empty"), {})[1] == []
    empty, _ = run(Parts(parts=[Image(path="/files/empty")]), {"/files/empty": b""})
    assert empty == Parts(parts=[Image()])


def test_what_names_no_path_is_left_as_it_is() -> None:
    for content in (Text(text="a"), Parts(parts=[Text(text="a"), Image(data=PNG)])):
        assert run(content, {}) == (content, [])


def test_bytes_and_a_path_contradict_each_other() -> None:
    with pytest.raises(BadArgument, match="bytes and a path"):
        run(Parts(parts=[Image(data=PNG, path="/files/x.png")]), {})

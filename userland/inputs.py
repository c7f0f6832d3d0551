"""What programs pass to a model as plain Python, and the input type that it becomes.

Pictures and sounds are bytes, or files: of this machine as a `Path`, of the namespace as `Image(path=...)`, whose bytes
the flow that makes the call reads (`of_namespace`), with the rights of the session.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, NotFound
from llmos.syscalls.types import Audio, Chat, Image, Input, Parts, Table, Tensor, Tensors, Text, Tokens, Video

from .flow import Flow, ask

Media = Image | Audio | Video
Part = str | bytes | Path | Text | Media | Table
"""Text, an encoded picture or sound as bytes or as a file of this machine, or one of the part types."""

InputLike = (
    str | bytes | Path | Media | Sequence[int] | Sequence[Mapping[str, Any]] | Sequence[Part] | Mapping[str, Any]
    | Input
)  # fmt: skip
"""Text, a picture or sound, token ids, chat messages (maps with `role` and `content`), several parts in a list, tensors
by name in a map (nested lists, arrays, `Tensor`), or one of the input types."""

WANTED = "text, a picture or sound (bytes, Path), a list of these, token ids, messages, tensors by name, or an Input"
READ_AT_ONCE = 4 << 20

_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
_SOUNDS = (b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
_FORMATS: Mapping[str, str] = {
    "f": "float32", "d": "float32", "q": "int64", "l": "int64", "i": "int32", "b": "int8", "B": "uint8", "?": "bool",
    "e": "float16",
}  # fmt: skip
"""Item formats of buffers, and the dtype they become."""


def to_input(value: InputLike) -> Input:
    """The input type that a plain value means.

    Raises:
        BadArgument: it is none of them; a picture or sound of a format that is not known by its first bytes.
        NotFound: a file of this machine that is not there.
    """
    if isinstance(value, str):
        return Text(text=value)
    if isinstance(value, (Text, Tokens, Chat, Parts, Tensors)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview, Path, Image, Audio, Video, Table)):
        return Parts(parts=[_part(value)])
    if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
        return Tensors(named={name: tensor(each) for name, each in value.items()})
    if isinstance(value, Sequence):
        items = list(value)
        if all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            return Tokens(ids=cast("list[int]", items))
        if all(isinstance(item, Mapping) for item in items):
            return Chat(messages=[dict(cast("Mapping[str, Any]", item)) for item in items])
        return Parts(parts=[_part(item) for item in items])
    raise _refused(value)


def media(data: bytes) -> Image | Audio:
    """A picture or sound, told apart by its first bytes. Raises BadArgument."""
    if data.startswith(_PICTURES) or (data[:4], data[8:12]) == (b"RIFF", b"WEBP"):
        return Image(data=data)
    if data.startswith(_SOUNDS) or (data[:4], data[8:12]) == (b"RIFF", b"WAVE"):
        return Audio(data=data)
    want = "a picture (PNG, JPEG, WebP, GIF, BMP, TIFF) or a sound (WAV, FLAC, OGG, MP3)"
    said = f"these {len(data)} bytes are not known to be {want}; say Image(data=...) or Audio(data=...)"
    raise BadArgument(said, name="input", got=repr(data[:8]), want=want)


def tensor(value: Any) -> Tensor:
    """A tensor of numbers in nested lists, or of what shares its memory (arrays of `array` and numpy).

    Raises:
        BadArgument: lists of unequal lengths, or of something else.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (list, tuple, int, float)):
        return _from_lists(value)
    try:
        view = memoryview(value)
    except TypeError:
        raise BadArgument(
            f"a tensor is a {type(value).__name__}; expected nested lists, an array, or a Tensor", name="input",
            got=type(value).__name__, want="nested lists, an array or a Tensor",
        ) from None  # fmt: skip
    return _from_memory(view)


def of_namespace(content: Input) -> Flow[Input]:
    """The input with the bytes of the files that media parts name by their path of the namespace.

    Raises:
        BadArgument: a part with bytes and a path, or a chat's.
    """
    if not isinstance(content, Parts) or not any(getattr(part, "path", "") for part in content.parts):
        return content
    parts: list[Any] = []
    for part in content.parts:
        if isinstance(part, (Image, Audio, Video)) and part.path:
            if part.data:
                raise BadArgument("a part has bytes and a path; give one of them", name="path", got=part.path)
            data = yield from _read(part.path)
            part = msgspec.structs.replace(part, data=data, path="")
        parts.append(part)
    return Parts(parts=parts)


def _read(path: str) -> Flow[bytes]:
    opened = yield from ask(calls.OpenFile(path=path))
    parts: list[bytes] = []
    try:
        while True:
            offset = sum(map(len, parts))
            data = yield from ask(calls.ReadFile(file=opened.handle, offset=offset, count=READ_AT_ONCE))
            assert isinstance(data.data, bytes)
            parts.append(data.data)
            if data.eof or not data.data:
                return b"".join(parts)
    finally:
        yield from ask(calls.CloseHandle(handle=opened.handle))


def _part(value: object) -> Text | Media | Table:
    if isinstance(value, str):
        return Text(text=value)
    if isinstance(value, (Text, Image, Audio, Video, Table)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return media(bytes(value))
    if isinstance(value, Path):
        try:
            return media(value.read_bytes())
        except OSError as error:
            raise NotFound(f"{value} cannot be read: {error.strerror}") from None
    raise _refused(value)


def _refused(value: object) -> BadArgument:
    got = type(value).__name__
    return BadArgument(f"input is a {got}; expected {WANTED}", name="input", got=got, want=WANTED)


def _from_lists(value: Any) -> Tensor:
    shape: list[int] = []
    inner = value
    while isinstance(inner, (list, tuple)):
        shape.append(len(inner))
        inner = inner[0] if inner else 0.0
    flat = list(_flattened(value, shape))
    kinds = {type(item) for item in flat}
    if kinds <= {bool} and flat:
        return Tensor(dtype="bool", shape=shape, data=bytes(map(bool, flat)))
    if kinds <= {int} and flat:
        return Tensor(dtype="int64", shape=shape, data=_packed("q", flat))
    return Tensor(dtype="float32", shape=shape, data=_packed("f", flat))


def _flattened(value: Any, shape: Sequence[int]) -> Iterator[int | float]:
    if not shape:
        if not isinstance(value, (int, float)):
            raise BadArgument(f"a tensor holds {value!r:.40}, not a number", name="input", got=repr(value)[:40])
        yield value
        return
    if not isinstance(value, (list, tuple)) or len(value) != shape[0]:
        want = f"lists of {shape[0]}"
        raise BadArgument(f"a tensor needs equal lists: expected {want}", name="input", got=repr(value)[:40], want=want)
    for item in value:
        yield from _flattened(item, shape[1:])


def _from_memory(view: memoryview) -> Tensor:
    kind = view.format.lstrip("<@=")
    if kind not in _FORMATS:
        known = ", ".join(dict.fromkeys(_FORMATS.values()))
        said = f"a tensor has numbers of format {view.format!r}; expected {known}"
        raise BadArgument(said, name="input", got=view.format, want=known)
    data = view.tobytes()
    if kind == "d":
        data = _packed("f", memoryview(data).cast("d"))
    return Tensor(dtype=_FORMATS[kind], shape=list(view.shape or ()), data=data)


def _packed(code: str, numbers: Any) -> bytes:
    """Little endian. Raises BadArgument for numbers beyond 64 bits."""
    try:
        made = array(code, numbers)
    except OverflowError as error:
        raise BadArgument(f"a tensor holds a number that is too large: {error}", name="input") from None
    if sys.byteorder == "big":
        made.byteswap()
    return made.tobytes()

"""Small values that many calls share."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any, dataclass_transform

from msgspec import Meta, Struct, StructMeta, field

from .authority import Handle

Number = float | int | str


class KeywordMeta(StructMeta):
    """Makes each subclass keyword-only, which Structs, unlike `frozen`, do not inherit."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **options: Any) -> Any:
        return super().__new__(mcls, name, bases, namespace, **{"frozen": True, "kw_only": True, **options})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class Value(Struct, metaclass=KeywordMeta, frozen=True, kw_only=True):
    """Base of everything a call answers with. Unknown fields are ignored: new ones never break an old client."""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class Argument(Struct, metaclass=KeywordMeta, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything passed to a call. Unknown fields are errors, so that a typing mistake is never ignored."""


class Reason(Value):
    """Why the kernel decided something: a stable code, a sentence, the numbers it weighed."""

    code: str
    text: str
    numbers: dict[str, Number] = {}
    rule: str = ""
    at: float = 0.0
    """Seconds since the epoch."""
    change: str = ""
    """What would change the decision, as an instruction."""


class BufferRef(Argument, tag="buffer"):
    """Bytes inside a shared buffer of the session, instead of bytes in the message."""

    buffer: Handle
    offset: Annotated[int, Meta(ge=0)] = 0
    length: Annotated[int, Meta(ge=0)] = 0


class BufferOut(BufferRef, tag="buffer", forbid_unknown_fields=False):
    """The same in a result, where unknown fields are ignored."""


Bytes = bytes | BufferRef
"""Bytes in the message (at most 64 KiB) or a place in a shared buffer."""

BytesOut = bytes | BufferOut
"""The same in a result."""


class Tensor(Argument):
    """A dense, C-contiguous tensor, little endian."""

    dtype: Annotated[str, "float32, float16, bfloat16, int64, int32, int8, uint8 or bool"]
    shape: list[Annotated[int, Meta(ge=0)]]
    data: Bytes = b""

    def tolist(self) -> Any:
        """The numbers as nested lists. Raises ValueError when the bytes lie in a buffer that was not read yet."""
        if not isinstance(self.data, bytes):
            raise ValueError("the numbers lie in a shared buffer: read that first")
        count = math.prod(self.shape)
        if self.dtype == "bfloat16":
            halves = struct.unpack(f"<{count}H", self.data)
            flat = struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(half << 16 for half in halves)))
        else:
            flat = struct.unpack(f"<{count}{_CODES[self.dtype]}", self.data)
        return _nested(flat, self.shape)


_CODES = {"float32": "f", "float16": "e", "int64": "q", "int32": "i", "int8": "b", "uint8": "B", "bool": "?"}


def _nested(flat: Sequence[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return flat[0]
    size = len(flat) // shape[0] if shape[0] else 0
    return [_nested(flat[at * size : (at + 1) * size], shape[1:]) for at in range(shape[0])]


class TensorOut(Tensor, forbid_unknown_fields=False):
    """The same in a result."""

    data: BytesOut = b""


class Done(Value):
    """Nothing to report but success."""


class Metric(Value):
    """One sample of a counter, gauge or histogram."""

    kind: str
    value: float
    unit: str = ""
    help: str = ""
    labels: dict[str, str] = {}
    buckets: dict[str, int] = {}


class Event(Value):
    """Something that happened; `lost` counts events dropped before this one because credit ran out."""

    kind: str
    about: str = ""
    at: float = 0.0
    fields: dict[str, Any] = {}
    lost: int = 0


class Record(Value):
    """One line of the journal."""

    seq: int
    at: float
    unit: str
    level: str
    about: str
    text: str
    fields: dict[str, Any] = {}
    reasons: list[Reason] = []

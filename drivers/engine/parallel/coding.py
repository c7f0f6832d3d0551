"""Messages between the host process and its ranks as bytes: JSON, so that reading one can run nothing.

A message is a dataclass of `messages`; it is written with its name and read back by the types of its fields.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from llmos.syscalls.errors import LlmosError, from_wire

from .messages import Order, Said

ORDERS = {kind.__name__: kind for kind in get_args(Order)}
SAID = {kind.__name__: kind for kind in get_args(Said)}


def encode(message: Order | Said) -> bytes:
    """The bytes of a message. Raises TypeError for a value that has no place in JSON."""
    return json.dumps([type(message).__name__, _plain(message)], separators=(",", ":")).encode()


def order(data: bytes) -> Order:
    """What a rank is told. Raises ValueError, KeyError or TypeError for bytes that `encode` does not write."""
    found: Order = _decoded(ORDERS, data)
    return found


def said(data: bytes) -> Said:
    """What a rank says. Raises as `order`."""
    found: Said = _decoded(SAID, data)
    return found


def _decoded(kinds: Mapping[str, Any], data: bytes) -> Any:
    name, body = json.loads(data)
    return _made(kinds[name], body)


def _plain(value: Any) -> Any:
    if isinstance(value, LlmosError):
        return value.to_wire()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return value if all(type(each) is int for each in value) else [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _made(kind: Any, value: Any) -> Any:
    """A value of a type from what `_plain` made of one."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _made(next(each for each in of if each is not NoneType), value)
    if origin is tuple:
        return tuple(value)
    if origin in (list, Sequence):
        return value if of[0] is int else [_made(of[0], each) for each in value]
    if origin is Mapping:
        return {of[0](key): _made(of[1], each) for key, each in value.items()}
    if kind is LlmosError:
        return from_wire(value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return kind(**{name: _made(_fields(kind)[name], each) for name, each in value.items()})
    return Path(value) if kind is Path else value


@cache
def _fields(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)

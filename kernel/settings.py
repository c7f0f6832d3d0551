"""Turns a table of the configuration file into a checked Struct, with errors that name the key and what is near it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec.inspect import LiteralType, Type

from llmos.syscalls.describe import suggest
from llmos.syscalls.types import Argument


class ConfigError(Exception):
    """The configuration cannot be used; the text says which key, which value, and what is expected."""


class Section(Argument):
    """Base of every table of the file: an unknown key is an error, as in a call."""


T = TypeVar("T", bound=msgspec.Struct)

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]+)`")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>[^`]+)`")


def convert(table: object, cls: type[T], where: str) -> T:
    """The Struct of a table; `where` is the dotted name of the table.

    Raises:
        ConfigError: a key is unknown, missing, or has a value of the wrong kind.
    """
    try:
        return msgspec.convert(table, cls)
    except msgspec.ValidationError as error:
        message = str(error)
    at = _AT.search(message)
    inner = at["path"] if at else ""
    path = ".".join(part for part in (where, inner) if part)
    text = _AT.sub("", message)
    if unknown := _UNKNOWN.match(text):
        raise ConfigError(f"unknown key {path}.{unknown['field']}; {suggest(unknown['field'], _keys(cls))}")
    if missing := _MISSING.match(text):
        raise ConfigError(f"{path}: the key {missing['field']!r} is missing")
    expected = text.removeprefix("Expected ").replace("`", "")
    if choices := _choices(cls, inner.rpartition(".")[2]):
        expected = f"one of {', '.join(map(str, choices))}"
    raise ConfigError(f"{path} is {_look_up(table, inner)!r}; expected {expected}")


def _look_up(table: Any, path: str) -> Any:
    """The value at a dotted path, or the innermost one that the path still names; `[...]` stands for any key."""
    for part in path.split("."):
        if not isinstance(table, dict) or part not in table:
            return table
        table = table[part]
    return table


def _keys(cls: Any) -> list[str]:
    """The keys of a Struct and of the Structs inside it."""
    return list(dict.fromkeys(name for name, _type in _fields(cls)))


def _choices(cls: Any, key: str) -> Sequence[object]:
    """The values that a key may have which takes only some; nothing for any other key."""
    return next((type.values for name, type in _fields(cls) if name == key and isinstance(type, LiteralType)), ())


def _fields(cls: Any) -> Iterator[tuple[str, Type]]:
    """The fields of a Struct and of the Structs inside it, by the names they have in a file."""
    pending = [msgspec.inspect.type_info(cls)]
    while pending:
        info = pending.pop()
        for field in getattr(info, "fields", ()):
            yield field.encode_name, field.type
            pending.append(field.type)
        pending.extend(getattr(info, "types", ()))
        value = getattr(info, "value_type", None)
        if value is not None:
            pending.append(value)

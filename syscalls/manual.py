"""The manual page of a call, derived from its declaration: what the shell's `help` and docs/syscalls/ show.

Pure: it reads the call table and makes text. The hand-written part of a page (description, example, causes of errors)
lives in docs/syscalls/.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from .describe import ANY, find, node_of, words
from .errors import COMMON, LlmosError
from .spec import COMMON_ARGUMENTS, CallSpec, FieldSpec


@dataclass(frozen=True, slots=True)
class ArgumentEntry:
    """One line of ARGUMENTS."""

    name: str
    type: str
    admits: str
    default: str
    """As written in Python; empty when the argument is required."""
    needs: str
    """For a handle: the kind and rights it must have."""
    doc: str


@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """One line of ERRORS."""

    name: str
    code: int
    fields: tuple[str, ...]
    doc: str


@dataclass(frozen=True, slots=True)
class Manual:
    """The head of a manual page."""

    name: str
    doc: str
    synopsis: str
    arguments: tuple[ArgumentEntry, ...]
    result: str
    errors: tuple[ErrorEntry, ...]
    """Those of this call; `COMMON` may come from any call."""


def manual(spec: CallSpec) -> Manual:
    """The page head of one call."""
    hints = get_type_hints(spec.cls, include_extras=True)
    arguments = tuple(_argument(spec, field, hints[field.name]) for field in spec.fields)
    listed = ", ".join(f"{a.name}={a.default}" if a.default else a.name for a in arguments)
    result = spell(spec.result)
    if spec.streams:
        result = f"{spell(spec.item)} ... {result}"
    errors = tuple(error_entry(cls) for cls in sorted(spec.errors, key=lambda cls: cls.code))
    return Manual(spec.name, spec.doc, f"{spec.name}({listed}) -> {result}", arguments, result, errors)


def _argument(spec: CallSpec, field: FieldSpec, hint: Any) -> ArgumentEntry:
    admits = words(find(node_of(spec.cls), field.name) or ANY)
    needs = ""
    if field.is_handle:
        admits = admits.replace("an integer", "a handle")
        needs = ", ".join([field.kind.value if field.kind else "any kind", *(right.name for right in field.rights)])
    default = "" if field.required else spell_value(field.default)
    return ArgumentEntry(field.name, spell(hint), admits, default, needs, field.doc)


def error_entry(cls: type[LlmosError]) -> ErrorEntry:
    """One error, as its class declares it."""
    return ErrorEntry(cls.__name__, cls.code, cls.field_names, (cls.__doc__ or "").partition("\n")[0])


def spell(hint: Any) -> str:
    """A type as written in Python, with its limits behind it: `int[0..100]`, `list[str]`, `Handle | None`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [_limits(meta) for meta in arguments[1:] if isinstance(meta, Meta)]
        return spell(arguments[0]) + "".join(limits)
    if origin is Literal:
        return " | ".join(repr(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(spell(argument) for argument in arguments)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(spell(argument) for argument in arguments)}]"
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, (type, NewType)) else str(hint).removeprefix("typing.")


def _limits(meta: Meta) -> str:
    def between(low: Any, high: Any, brackets: str) -> str:
        if low is None and high is None:
            return ""
        return f"{brackets[0]}{'' if low is None else low}..{'' if high is None else high}{brackets[1]}"

    return (
        between(meta.ge, meta.le, "[]")
        + between(meta.gt, meta.lt, "()")
        + between(meta.min_length, meta.max_length, "{}")
    )


def spell_value(value: Any) -> str:
    """A default as written in Python."""
    if isinstance(value, msgspec.Struct) and value == type(value)():
        return f"{type(value).__name__}()"
    value = value.value if isinstance(value, Enum) else value
    return f'"{value}"' if isinstance(value, str) else repr(value)


def text(spec: CallSpec) -> str:
    """The page head as plain text for a terminal."""
    page = manual(spec)
    lines = ["NAME", f"    {page.name}: {page.doc}", "", "SYNOPSIS", f"    {page.synopsis}"]
    if page.arguments:
        lines += ["", "ARGUMENTS"]
        for a in page.arguments:
            needs = f" [{a.needs}]" if a.needs else ""
            default = f" (default {a.default})" if a.default else ""
            lines += [f"    {a.name}{needs}: {a.doc or a.admits}{default}", f"        {a.admits}"]
    lines += ["", "RESULT", f"    {page.result}"]
    lines += ["", "ERRORS", *(f"    {e.name} ({e.code}): {e.doc}" for e in page.errors)]
    lines += [f"    and, as from any call, {', '.join(cls.__name__ for cls in COMMON)}"]
    return "\n".join(lines) + "\n"


def json_schema(spec: CallSpec) -> dict[str, Any]:
    """JSON Schema (2020-12) of the arguments, each with its description."""
    schema = msgspec.json.schema(spec.cls)
    properties = schema["$defs"][spec.cls.__name__]["properties"]
    docs = {field.name: field.doc for field in spec.fields}
    hints = get_type_hints(spec.cls, include_extras=True)
    docs |= {name: next(e for e in hints[name].__metadata__ if type(e) is str) for name in COMMON_ARGUMENTS}
    for name, entry in properties.items():
        if docs[name]:
            entry["description"] = docs[name]
    return schema

"""Writes the ABI listing: one line per call, type and error. `make abi` puts it into abi.txt.

A changed line is a changed contract. Compatible are: a new call, type or error; a new field with a default in a request
or a result. Anything else needs a new protocol number.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_type_hints

import msgspec
from llmos.syscalls import answers, calls, driver, errors, events, types, wire
from llmos.syscalls.manual import manual, spell, spell_value
from llmos.syscalls.spec import COMMON_ARGUMENTS, SYSCALLS, CallSpec, Table


def lines() -> Iterator[str]:
    """The listing."""
    yield f"protocol {wire.PROTOCOL}, kernel-host interface {events.VERSION}"
    yield f"features {', '.join(wire.FEATURES)}"
    yield f"message kinds {', '.join(kind.value for kind in wire.MessageKind)}"
    yield from table("syscall", SYSCALLS)
    yield from table("host call", driver.HOST_CALLS)
    for cls in sorted(declared(), key=lambda cls: cls.__name__):
        yield type_line(cls)
    for code, error in sorted(errors.by_code().items()):
        common = " common" if error in errors.COMMON else ""
        fields = ", ".join(f"{name}: {type(getattr(error, name)).__name__}" for name in error.field_names)
        yield f"error {code} {error.__name__}({fields}){common}"


def table(title: str, calls_of: Table) -> Iterator[str]:
    """The calls of one interface."""
    any_spec = next(iter(calls_of.values()))
    hints = get_type_hints(any_spec.cls, include_extras=True)
    yield f"{title} *({', '.join(f'{name}: {spell(hints[name])}' for name in COMMON_ARGUMENTS)})"
    for _, spec in sorted(calls_of.items()):
        yield f"{title} {call_line(spec)}"


def call_line(spec: CallSpec) -> str:
    """One call with its arguments, what handles must be, result and errors."""
    page = manual(spec)
    arguments = []
    for a in page.arguments:
        needs = f" [{a.needs}]" if a.needs else ""
        default = f" = {a.default}" if a.default else ""
        arguments.append(f"{a.name}: {a.type}{needs}{default}")
    raises = f" ! {', '.join(e.name for e in page.errors)}" if page.errors else ""
    return f"{spec.name}({'; '.join(arguments)}) -> {page.result}{raises}"


def declared() -> list[type[Any]]:
    """Every enumeration and Struct that travels, calls aside."""
    modules = [types.authority, types.common, types.inputs, types.models, types.objects, types.results, types.sampling]
    found = [
        value
        for module in [*modules, events, answers, driver, wire]
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, (msgspec.Struct, Enum)) and value.__module__ == module.__name__
    ]
    all_calls = {spec.cls for spec in [*SYSCALLS.values(), *driver.HOST_CALLS.values()]}
    return [cls for cls in found if cls not in all_calls]


def type_line(cls: type[Any]) -> str:
    """One type with its fields, and whether it refuses unknown ones."""
    if issubclass(cls, Enum):
        return f"type {cls.__name__}: {' | '.join(str(member.value) for member in cls)}"
    hints = get_type_hints(cls, include_extras=True)
    fields = []
    for field in msgspec.structs.fields(cls):
        default = "" if field.required else f" = {spell_value(default_of(field))}"
        fields.append(f"{field.name}: {spell(hints[field.name])}{default}")
    tag = f" tagged {cls.__struct_config__.tag_field}={cls.__struct_config__.tag}" if cls.__struct_config__.tag else ""
    strict = " strict" if cls.__struct_config__.forbid_unknown_fields else ""
    return f"type {cls.__name__}({'; '.join(fields)}){tag}{strict}"


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """The default of an optional field."""
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


if __name__ == "__main__":
    assert calls.__all__
    sys.stdout.write("\n".join(lines()) + "\n")

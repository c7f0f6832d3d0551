"""Turns one class per syscall into everything derived from it: typed client call, checks, manual page, schema.

A call is a frozen, keyword-only Struct. Its fields are the arguments; `Annotated` carries their limits
(`msgspec.Meta`), the kind and right a handle needs (`Kind`, `Right`), and one line of documentation (a plain string).
The idea is Zircon's and seL4's: one declaration, from which kernel entry, bindings and manual all follow.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING, Annotated, Any, Generic, TypeVar, Union, cast, dataclass_transform, get_args, get_origin,
    get_type_hints,
)  # fmt: skip

import msgspec
from msgspec import Meta

from .describe import ANY, field_names, find, key_words, node_of, words
from .errors import COMMON, BadArgument, LlmosError
from .types import Handle, Kind, Right, WorkClass

R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F")


class Stream(Generic[T, F]):
    """Result marker: items `T` arrive one by one, then one final `F`."""


@dataclass(frozen=True)
class FieldSpec:
    """One argument of a call."""

    name: str
    type: Any
    doc: str
    kind: Kind | None
    rights: tuple[Right, ...]
    required: bool
    default: Any
    is_handle: bool = False


@dataclass(frozen=True)
class CallSpec:
    """One call of a table: what the dispatcher, the client and the manual need to know."""

    name: str
    cls: type[msgspec.Struct]
    item: Any
    result: Any
    fields: tuple[FieldSpec, ...]
    errors: tuple[type[LlmosError], ...]
    doc: str

    @property
    def streams(self) -> bool:
        return self.item is not None

    @property
    def handles(self) -> tuple[FieldSpec, ...]:
        """The arguments that are handles, with the kind and rights each needs."""
        return tuple(f for f in self.fields if f.is_handle)


class Table(dict[str, CallSpec]):
    """All calls of one interface, by name."""

    def add(self, spec: CallSpec) -> None:
        if spec.name in self:
            raise TypeError(f"call {spec.name!r} is declared twice")
        self[spec.name] = spec


SYSCALLS = Table()
"""The syscall table; filled when `llmos.syscalls.calls` is imported."""


class CallMeta(msgspec.StructMeta):
    """Accepts `name=`, `errors=` and `table=`, which the Struct metaclass would refuse, and registers the class."""

    def __new__(
        mcls,
        cls_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        name: str = "",
        errors: tuple[type[LlmosError], ...] = (),
        table: Table = SYSCALLS,
        **options: Any,
    ) -> Any:
        for option in ("frozen", "kw_only", "forbid_unknown_fields"):
            options.setdefault(option, True)
        cls = super().__new__(mcls, cls_name, bases, namespace, **options)
        if name:
            table.add(_describe(cast("type[msgspec.Struct]", cls), name, errors))
        return cls


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Call(msgspec.Struct, Generic[R], metaclass=CallMeta, frozen=True, kw_only=True):
    """Base of every call. The four arguments here belong to all of them."""

    if TYPE_CHECKING:

        def __init_subclass__(
            cls, *, name: str = "", errors: tuple[type[LlmosError], ...] = (), table: Table = SYSCALLS
        ) -> None: ...

    deadline: Annotated[int | None, "absolute, monotonic nanoseconds of the machine; None waits"] = None
    priority: Annotated[int, Meta(ge=-1000, le=1000), "higher runs earlier within a class"] = 0
    work_class: Annotated[WorkClass, "interactive, batch or background"] = WorkClass.INTERACTIVE
    key: Annotated[str, Meta(max_length=200), "idempotency key: the same key gives the first answer again"] = ""


COMMON_ARGUMENTS = ("deadline", "priority", "work_class", "key")


def _describe(cls: type[msgspec.Struct], name: str, errors: tuple[type[LlmosError], ...]) -> CallSpec:
    item, result = _result_of(cls)
    hints = get_type_hints(cls, include_extras=True)
    fields = tuple(
        _field(info, hints[info.name]) for info in msgspec.structs.fields(cls) if info.name not in COMMON_ARGUMENTS
    )
    listed = tuple(e for e in errors if e not in COMMON)
    return CallSpec(name, cls, item, result, fields, listed, (cls.__doc__ or "").strip())


def _result_of(cls: type) -> tuple[Any, Any]:
    """(item type or None, result type) from the `Call[...]` base."""
    arguments = [argument for base in vars(cls).get("__orig_bases__", ()) for argument in get_args(base)]
    if not arguments:
        raise TypeError(f"{cls.__name__} does not say its result: derive it from Call[Result]")
    if get_origin(arguments[0]) is Stream:
        item, final = get_args(arguments[0])
        return item, final
    return None, arguments[0]


def _field(info: msgspec.structs.FieldInfo, hint: Any) -> FieldSpec:
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        extras = hint.__metadata__
        hint = hint.__origin__
    kinds = [e for e in extras if isinstance(e, Kind)]
    rights = tuple(e for e in extras if isinstance(e, Right))
    docs = [e for e in extras if type(e) is str]
    is_handle = hint is Handle or (get_origin(hint) in (Union, type(int | None)) and Handle in get_args(hint))
    if (rights or kinds) and not is_handle:
        raise TypeError(f"argument {info.name!r} names a kind or rights but is no handle")
    default = info.default
    if default is msgspec.NODEFAULT and info.default_factory is not msgspec.NODEFAULT:
        default = cast("Any", info.default_factory)()
    required = default is msgspec.NODEFAULT
    kind = kinds[0] if kinds else None
    return FieldSpec(
        info.name, info.type, docs[0] if docs else "", kind, rights, required, None if required else default,
        is_handle,
    )  # fmt: skip


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 3

_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>[^`]*)`")
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]+)`")


def check(spec: CallSpec, body: Mapping[str, Any], *, text: bool = False) -> Any:
    """Turn the body of a message into the call's Struct.

    Args:
        text: the body comes from JSON: bytes are base64 texts, and keys that are numbers are texts.

    Raises:
        BadArgument: names the argument, what was got and what was wanted.
    """
    try:
        if text:
            return msgspec.convert(body, spec.cls, str_keys=True)
        # Without `builtin_types`, text in the place of bytes would be taken for base64.
        return msgspec.convert(body, spec.cls, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise _explain(spec, body, str(error)) from None


def _explain(spec: CallSpec, body: Mapping[str, Any], message: str) -> BadArgument:
    place = _PLACE.search(message)
    path = place["path"] if place else ""
    text = _PLACE.sub("", message)
    node = node_of(spec.cls)
    if unknown := _UNKNOWN.match(text):
        return _unknown(spec, body, path, unknown["field"])
    if missing := _MISSING.match(text):
        name = _join(path, missing["field"])
        want = words(find(node, name) or ANY)
        return BadArgument(f"{spec.name}: argument {name!r} is missing; it is {want}", name=name, want=want)
    here = find(node, path) or ANY
    if place and place["key"]:
        keys = key_words(here)
        got = _SHORT.repr(_look_up(body, path))
        return BadArgument(
            f"{spec.name}: a key of {path or 'the arguments'} is not {keys}: {got}", name=path, got=got, want=keys
        )
    got, want = _SHORT.repr(_look_up(body, path)), words(here)
    return BadArgument(f"{spec.name}: {path} is {got}; expected {want}", name=path, got=got, want=want)


def _unknown(spec: CallSpec, body: Mapping[str, Any], path: str, field: str) -> BadArgument:
    parent = find(node_of(spec.cls), path) or ANY
    inside = field_names(parent, _look_up(body, path))
    known = inside if path else [f.name for f in spec.fields] + list(COMMON_ARGUMENTS)
    name = _join(path, field[:80])
    near = difflib.get_close_matches(field[:80], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
    got = _SHORT.repr(_look_up(body, _join(path, field)))
    return BadArgument(f"{spec.name}: unknown argument {name!r}; {hint}", name=name, got=got, want=", ".join(known))


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _look_up(body: Any, path: str) -> Any:
    """The value at a path; where msgspec does not say which element (`[...]`), the map or set that holds it."""
    value = body
    for part in re.findall(r"[^.\[\]]+|\[\.\.\.\]", path):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)]
        else:
            return value
    return value

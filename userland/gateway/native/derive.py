"""What follows from the call table for HTTP: which arguments a call takes in JSON, and what its answer looks like.

A handle means nothing outside of its session, so an argument that is a handle is a text here: the name, id or path of
an object, with its kind before it (`model:tiny`) where the call takes several. The system itself is left out. Answers
hold no handles. Pure: functions of the table and of values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.spec import SYSCALLS, Call, CallSpec, FieldSpec, check
from llmos.syscalls.types import Handle, Kind, Reason

from .scopes import CALLS

MOST_SECONDS = 86400.0
"""The longest `timeout` of a call."""
_KINDS = {kind.value: kind for kind in Kind}


def offered() -> list[CallSpec]:
    """The calls of the table that are offered over HTTP."""
    return [spec for name, spec in SYSCALLS.items() if name in CALLS]


@dataclass(frozen=True)
class Wanted:
    """An argument that names an object."""

    field: FieldSpec
    text: str
    kind: Kind | None
    """None: the text is the id of an object of any kind."""
    name: str
    """The name, id or path."""


def wanted(spec: CallSpec, body: Mapping[str, Any]) -> list[Wanted]:
    """The objects that the body names.

    Raises:
        BadArgument: a handle that is no text, or of a kind that does not exist.
    """
    found = []
    for field in spec.handles:
        given = body.get(field.name)
        if field.kind is Kind.SYSTEM:
            if field.name in body:
                raise BadArgument(f"{spec.name}: leave {field.name!r} out, it is always the system", name=field.name)
            continue
        if given is None and not field.required:
            continue
        if field.name not in body:
            text = f"{spec.name}: argument {field.name!r} is missing; it is {_want(field)}"
            raise BadArgument(text, name=field.name, want=_want(field))
        if not isinstance(given, str) or not given:
            want = _want(field)
            raise BadArgument(
                f"{spec.name}: {field.name} is {str(given)[:80]!r}; expected {want}", name=field.name,
                got=str(given)[:80], want=want,
            )  # fmt: skip
        found.append(_wanted(field, given))
    return found


def _want(field: FieldSpec) -> str:
    if field.kind is not None:
        return f"the name, id or path of a {field.kind.value}"
    return "kind:name, such as model:tiny, or the id of an object"


def _wanted(field: FieldSpec, given: str) -> Wanted:
    kind, colon, name = given.partition(":")
    if field.kind is not None:
        # `model:tiny` is understood as well; a name may hold a colon itself.
        mine = colon and kind == field.kind.value
        return Wanted(field, given, field.kind, name if mine else given)
    if not colon:
        return Wanted(field, given, Kind.SYSTEM if given == "system" else None, given)
    if kind not in _KINDS:
        raise BadArgument(
            f"{field.name}: there is no kind {kind[:80]!r}; {suggest(kind, list(_KINDS))}", name=field.name,
            got=given[:80], want=_want(field),
        )  # fmt: skip
    return Wanted(field, given, _KINDS[kind], name)


def made(spec: CallSpec, body: Mapping[str, Any], handles: Mapping[str, Handle], system: Handle) -> Call[Any]:
    """The call that a body of JSON means.

    Args:
        handles: of the objects that the body names, by argument.
        system: the handle of the system.

    Raises:
        BadArgument: names the argument, what was got and what was wanted.
    """
    if "deadline" in body:
        raise BadArgument(f"{spec.name}: give a timeout in seconds, not a deadline", name="deadline", want="timeout")
    filled = {field.name: system for field in spec.handles if field.kind is Kind.SYSTEM}
    rest = {name: value for name, value in body.items() if name != "timeout"}
    call: Call[Any] = check(spec, {**rest, **handles, **filled}, text=True)
    return call


def timeout_of(body: Mapping[str, Any], longest: float) -> float:
    """Seconds that the call may take: `timeout` of the body, at most `longest`. Raises BadArgument."""
    given = body.get("timeout")
    if given is None:
        return longest
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given <= MOST_SECONDS:
        raise BadArgument(
            f"timeout is {str(given)[:80]}; expected seconds, more than 0 and at most {MOST_SECONDS:g}", name="timeout",
            got=str(given)[:80], want="seconds",
        )  # fmt: skip
    return min(float(given), longest)


def bare(value: Any) -> Any:
    """A result as plain types without the handles in it."""
    if isinstance(value, (list, tuple)):
        return [bare(item) for item in value]
    plain = msgspec.to_builtins(value, builtin_types=(bytes,), str_keys=True)
    if isinstance(value, msgspec.Struct) and "handle" in value.__struct_fields__:
        del plain["handle"]
    return plain


def answer(value: Any, request: str, reasons: Sequence[Reason]) -> dict[str, Any]:
    """The body of an answer."""
    return {"value": bare(value), "request": request, "reasons": [bare(reason) for reason in reasons]}

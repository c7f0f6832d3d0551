"""The border between keys: what a caller without the scope `admin` may name and see.

The kernel knows one user behind all keys and shares with all of that user's tenants: devices, drivers, the journal, and
a /home of all. So the gateway draws the line. Pure: a caller and a value in, the value it may have out, or Denied.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, Denied, NotFound
from llmos.syscalls.spec import Call
from llmos.syscalls.types import (
    Audio, Entry, Event, Hit, Image, Kind, Metric, ObjectInfo, Parts, Record, Right, Rights, Video,
)  # fmt: skip

from ..core.caller import Caller
from ..core.scopes import Scope

MODELS = "/models"
HOMES = "/home/keys"
ME = "/home/me"
PUBLIC_KINDS = frozenset({Kind.DEVICE, Kind.DRIVER, Kind.MODEL, Kind.SYSTEM})
"""Kinds that everybody sees; of the others everybody sees what is their own (the kernel's rule for tenants)."""
CONTROLLED = frozenset({Kind.MODEL, Kind.TASK, Kind.CONTEXT})
"""Kinds that a key with the scope `manage` may act on."""
_GIVEN: Mapping[Right, tuple[Scope, ...]] = {
    Right.READ: ("read",), Right.LIST: ("read",), Right.WAIT: ("read",), Right.RUN: ("infer",),
    Right.CREATE: ("load", "tune"), Right.WRITE: ("files",), Right.MANAGE: ("manage",),
}  # fmt: skip
"""The scopes of which any gives a right; handles are neither copied nor handed on here."""
_REMOTE = ("hf:", "llmos+http://", "llmos+https://")
_PID = re.compile(r" \(pid \d+\)")
_PRIVATE_LABELS = frozenset({"tenant", "owner", "session", "uid"})


def home(caller: Caller) -> str:
    """The folder of the caller's own files: that of its key, one for all who come without a key."""
    return f"{HOMES}/{caller.key or 'local'}"


def path(caller: Caller, given: str) -> str:
    """The path of the namespace that a caller means: `/home/me` is its own folder.

    Raises:
        BadArgument: no absolute path, or one with empty, `.` or `..` parts.
        Denied: it lies outside of /models and the caller's own folder.
    """
    named = _normal(given)
    if named == ME or named.startswith(f"{ME}/"):
        named = home(caller) + named.removeprefix(ME)
    if not caller.admin and not (is_below(named, home(caller)) or is_below(named, MODELS)):
        raise Denied(
            f"{given[:200]!r} is outside of {MODELS} and {ME}; a key with the scope 'admin' may go there",
            missing="admin",
        )
    return named


def is_below(named: str, folder: str) -> bool:
    """Whether a path is the folder or lies in it."""
    return named == folder or named.startswith(f"{folder}/")


def outside(caller: Caller, named: str) -> str:
    """A path as the caller knows it: its own folder is `/home/me`."""
    mine = home(caller)
    return ME + named.removeprefix(mine) if is_below(named, mine) else named


def sees_path(caller: Caller, named: str) -> bool:
    """Whether the key's patterns of models let it see a path: a model, what is in it, or a folder above one."""
    if not caller.models or caller.admin or not is_below(named, MODELS):
        return True
    parts = [part.partition("@")[0] for part in named.removeprefix(MODELS).split("/") if part]
    if any(caller.may_use("/".join(parts[:count])) for count in range(1, len(parts) + 1)):
        return True
    return any(_leads_to(parts, pattern.split("/")) for pattern in caller.models)


def _leads_to(parts: list[str], pattern: list[str]) -> bool:
    return len(parts) < len(pattern) and all(
        fnmatchcase(part, wanted) for part, wanted in zip(parts, pattern, strict=False)
    )


def model_path(caller: Caller, given: str) -> str:
    """The same as `path`, where only what the key's patterns show exists.

    Raises:
        NotFound: the key may not use models of that name.
    """
    named = path(caller, given)
    if not sees_path(caller, named):
        raise NotFound(f"{given[:200]} does not exist, or is not for this key")
    return named


def stored_model(caller: Caller, given: str) -> str:
    """The path of a stored model, for APIs that know nothing but models.

    Raises:
        NotFound: it lies elsewhere than below /models, or is not for this key.
    """
    try:
        named = model_path(caller, given)
    except (Denied, BadArgument):
        named = MODELS
    if named == MODELS or not is_below(named, MODELS):
        raise NotFound(f"{given[:200]} is no model of {MODELS}")
    return named


def _normal(given: str) -> str:
    """As the kernel takes paths, and nothing looser."""
    if not given.startswith("/") or "\0" in given or len(given) > 4096:
        raise BadArgument(f"{given[:80]!r} is no path of the namespace", name="path", got=given[:80], want="/a/path")
    trimmed = given.removesuffix("/")
    for part in trimmed.split("/")[1:]:
        if part in ("", ".", ".."):
            raise BadArgument(f"the path {given[:80]!r} has the part {part!r}", name="path", got=given[:80])
    return trimmed or "/"


# ---- calls


def call(caller: Caller, made: Call[Any], kinds: Mapping[str, Kind]) -> Call[Any]:
    """The call with the paths that the caller means and a priority that it may have.

    Args:
        kinds: of the object in each argument that is a handle.

    Raises:
        Denied: it goes where only an admin may.
    """
    changes: dict[str, Any] = {}
    priority = caller.priority(made.priority)
    if priority != made.priority:
        changes["priority"] = priority
    changes |= _paths(caller, made)
    if isinstance(made, calls.ControlObject):
        _may_control(caller, kinds["handle"], made)
    if isinstance(made, calls.CloseHandle) and kinds["handle"] not in (Kind.LEASE, Kind.CONTEXT):
        raise BadArgument(
            f"close_handle ends leases and contexts here, not a {kinds['handle'].value}", name="handle",
            got=kinds["handle"].value, want="a lease or a context",
        )  # fmt: skip
    return msgspec.structs.replace(made, **changes) if changes else made


def _paths(caller: Caller, made: Call[Any]) -> dict[str, Any]:
    if isinstance(made, calls.ListDir):
        after = path(caller, made.after) if made.after else ""
        return {"path": model_path(caller, made.path), "after": after}
    if isinstance(made, (calls.StatPath, calls.RemovePath, calls.SearchFs)):
        return {"path": model_path(caller, made.path)}
    if isinstance(made, calls.LoadModel):
        draft = made.options.draft
        options = msgspec.structs.replace(made.options, draft=model_path(caller, draft)) if draft else made.options
        return {"path": model_path(caller, made.path), "options": options}
    if isinstance(made, calls.TransformModel):
        sources = [_source(caller, source) for source in made.sources]
        return {"sources": sources, "out": _target(caller, made.out)}
    if isinstance(made, calls.Tune):
        return {"data": path(caller, made.data), "out": model_path(caller, made.out)}
    if isinstance(made, (calls.Infer, calls.InferStream, calls.Embed)) and isinstance(made.input, Parts):
        parts = [
            msgspec.structs.replace(part, path=path(caller, part.path))
            if isinstance(part, (Image, Audio, Video)) and part.path
            else part
            for part in made.input.parts
        ]
        return {"input": Parts(parts=parts)}
    return {}


def _source(caller: Caller, given: str) -> str:
    return given if given.startswith(_REMOTE) else model_path(caller, given)


def _target(caller: Caller, given: str) -> str:
    """What is no path of the namespace is a folder of the machine or another machine: for admins."""
    if given.startswith("/"):
        return model_path(caller, given)
    if not caller.admin:
        raise Denied(f"{given[:200]!r} is no path below {MODELS} or {ME}", missing="admin")
    return given


def _may_control(caller: Caller, kind: Kind, made: calls.ControlObject) -> None:
    if caller.admin or kind in CONTROLLED:
        return
    if kind is Kind.MOUNT:  # its models: one by name, or all of them
        name = made.options.get("name")
        if not caller.models or (isinstance(name, str) and sees_path(caller, f"{MODELS}/{name.strip('/')}")):
            return
    raise Denied(f"acting on a {kind.value} needs a key with the scope 'admin'", missing="admin")


# ---- what is shown


def shown(caller: Caller, info: ObjectInfo) -> ObjectInfo | None:
    """An object as the caller may see it; None when it may not."""
    if caller.admin:
        return info
    if info.kind == Kind.MODEL and not _sees_model(caller, info):
        return None
    fields = {name: value for name, value in info.fields.items() if name not in ("pid", "source", "argv")}
    return msgspec.structs.replace(info, fields=fields, owner="", rights=rights(caller, info))


def rights(caller: Caller, info: ObjectInfo) -> Rights:
    """What the caller may do with an object: of its session's rights those for which its key has a scope."""
    return frozenset(
        right
        for right in info.rights
        if any(caller.has(scope) for scope in _GIVEN.get(right, ()))
        and (right is not Right.MANAGE or info.kind in CONTROLLED)
    )


def _sees_model(caller: Caller, info: ObjectInfo) -> bool:
    named = str(info.fields.get("path", ""))
    stored = named.removeprefix(f"{MODELS}/").partition("@")[0] if is_below(named, MODELS) else info.name
    return caller.may_use(info.name) or caller.may_use(stored)


def entries(caller: Caller, found: Iterable[Entry]) -> list[Entry]:
    """The entries of a folder that the caller may see."""
    return [
        entry if caller.admin else msgspec.structs.replace(entry, path=outside(caller, entry.path))
        for entry in found
        if sees_path(caller, entry.path)
    ]


def hits(caller: Caller, found: Iterable[Hit]) -> list[Hit]:
    """The hits of a search that the caller may see."""
    return [
        hit if caller.admin else msgspec.structs.replace(hit, path=outside(caller, hit.path))
        for hit in found
        if sees_path(caller, hit.path)
    ]


def metrics(caller: Caller, found: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics that tell nothing of other users."""
    if caller.admin:
        return dict(found)
    return {name: metric for name, metric in found.items() if not _PRIVATE_LABELS & metric.labels.keys()}


def records(caller: Caller, found: Iterable[Record], known: Collection[str]) -> list[Record]:
    """The records of the journal about what the caller sees.

    Args:
        known: ids and names of the objects that it sees.
    """
    if caller.admin:
        return list(found)
    return [_without_pid(record) for record in found if record.about in known]


def _without_pid(record: Record) -> Record:
    fields = {name: value for name, value in record.fields.items() if name != "pid"}
    return msgspec.structs.replace(record, fields=fields, text=_PID.sub("", record.text))


def sees_event(caller: Caller, event: Event, known: Collection[str]) -> bool:
    """Whether an event is about what the caller sees; `known` as for `records`."""
    return caller.admin or event.about in known

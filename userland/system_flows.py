"""What can be asked of the whole system, each as one flow for both faces. `self` is a System or an AsyncSystem."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import msgspec

from llmos.syscalls import calls
from llmos.syscalls.errors import BadHandle, Exists, NotFound
from llmos.syscalls.spec import Call, Stream
from llmos.syscalls.types import (
    Buffer, Done, Entry, Event, File, GrantTo, Handle, Hit, Kind, Lease, Limits, Metric, ModelInfo, Mount, MountTo,
    ObjectInfo, Record, Task, TaskState, TransformRecipe,
)  # fmt: skip

from .flow import Flow, OnProgress, ask
from .held import Opened, Whole
from .options import DEFAULT_LOAD, LoadFields, deadline_in, fill
from .places import host_path

Self = Whole[Any]
Level = Literal["debug", "info", "warning", "error"]
MOUNTS = "/mnt"
CHUNK = 4 << 20
"""Bytes per call when a whole file is read or written."""


# ---- models


def load_model(
    self: Self,
    path: str | Path,
    *,
    device: str | Handle | None = None,
    base: Opened[Any, ModelInfo] | None = None,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[LoadFields],
) -> Flow[ModelInfo]:
    """Load a model, or share it when it is loaded already.

    Args:
        path: a path of the namespace (`/models/tiny`), or a folder of this machine (`./my-model`, a `Path`).
        device: name or handle; None lets policy place it.
        base: the loaded model that an adapter is for.
        timeout: seconds.
        on_progress: called with each `Progress`.
        options: the fields of `LoadOptions`; `draft`, a smaller model, is a path or folder like `path`.
    """
    return (yield from _load(self, path, device, base, timeout, on_progress, {**options}))


def plan_model(
    self: Self,
    path: str | Path,
    *,
    device: str | Handle | None = None,
    base: Opened[Any, ModelInfo] | None = None,
    **options: Unpack[LoadFields],
) -> Flow[ModelInfo]:
    """What loading a model would take, in `plan`, without loading it. Arguments as for `load_model`."""
    return (yield from _load(self, path, device, base, None, None, {**options, "dry_run": True}))


def _load(
    self: Self,
    path: str | Path,
    device: str | Handle | None,
    base: Opened[Any, ModelInfo] | None,
    timeout: float | None,
    on_progress: OnProgress | None,
    fields: Mapping[str, Any],
) -> Flow[ModelInfo]:
    draft = fields.get("draft")
    named = {"draft": (yield from namespace_path(self, draft))} if draft else {}
    options = fill(DEFAULT_LOAD, {**fields, **named}, "load_model")
    request = calls.LoadModel(
        path=(yield from namespace_path(self, path)),
        device=(yield from _device(self, device)),
        base=None if base is None else base.handle,
        options=options,
        deadline=deadline_in(timeout),
    )
    return (yield from ask(request, on_progress))


def namespace_path(self: Self, path: str | Path) -> Flow[str]:
    """The path in the namespace; a folder of this machine is mounted read-only below /mnt first."""
    folder = path.absolute() if isinstance(path, Path) else host_path(path)
    if folder is None:
        return str(path)
    known = self.mounted.get((self.session, folder))
    if known is not None:
        return known
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder} on this machine" + (": it is a file" if folder.exists() else ""))
    for attempt in range(1, 100):
        target = f"{MOUNTS}/{folder.name or 'root'}" + (f"-{attempt}" if attempt > 1 else "")
        try:
            yield from mount(self, folder, target)
        except Exists:
            continue
        self.mounted[self.session, folder] = target
        return target
    raise Exists(f"all names like {MOUNTS}/{folder.name} are taken by mounts; unmount some")


def _device(self: Self, device: str | Handle | None) -> Flow[Handle | None]:
    if not isinstance(device, str):
        return device
    return (yield from find(self, Kind.DEVICE, device)).handle


def model(self: Self, name: str) -> Flow[ModelInfo]:
    """A model that is loaded already, by name, id or path.

    Raises:
        NotFound: no such model is loaded.
    """
    return model_info((yield from find(self, Kind.MODEL, name)))


def model_info(found: ObjectInfo) -> ModelInfo:
    """The same as what `load_model` answers, as far as the object tells it."""
    fields = {name: value for name, value in found.fields.items() if name in ModelInfo.__struct_fields__}
    fields["rung_reasons"] = []
    return msgspec.convert({**fields, "handle": found.handle, "id": found.id, "name": found.name}, ModelInfo)


# ---- objects


def objects(self: Self, kind: Kind | str, prefix: str = "") -> Flow[list[ObjectInfo]]:
    """All objects of a kind that this session may see, each with a handle to it."""
    return (yield from ask(calls.ListObjects(system=self.handle, kind=Kind(kind), prefix=prefix)))


def find(self: Self, kind: Kind | str, name: str) -> Flow[ObjectInfo]:
    """The object of that name, id or path.

    Raises:
        NotFound: none; the text names those there are.
    """
    found = yield from objects(self, kind)
    for info in found:
        if name in (info.name, info.id, info.fields.get("path", info.id)):
            return info
    known = ", ".join(info.name or info.id for info in found) or "none"
    raise NotFound(f"no {Kind(kind).value} is called {name!r}; there is {known}")


def devices(self: Self) -> Flow[list[ObjectInfo]]:
    """The devices."""
    return (yield from objects(self, Kind.DEVICE))


def drivers(self: Self) -> Flow[list[ObjectInfo]]:
    """The drivers; `fields` has pid, restarts and what they do."""
    return (yield from objects(self, Kind.DRIVER))


def models(self: Self) -> Flow[list[ObjectInfo]]:
    """The loaded models."""
    return (yield from objects(self, Kind.MODEL))


def tasks(self: Self) -> Flow[list[ObjectInfo]]:
    """The tasks."""
    return (yield from objects(self, Kind.TASK))


def sessions(self: Self) -> Flow[list[ObjectInfo]]:
    """The open sessions that may be seen."""
    return (yield from objects(self, Kind.SESSION))


def mounts(self: Self) -> Flow[list[ObjectInfo]]:
    """The mounts of this session's namespace."""
    return (yield from objects(self, Kind.MOUNT))


def mount_of(self: Self, path: str) -> Flow[tuple[ObjectInfo, str]]:
    """The mount that serves a path, and the path inside it. Raises NotFound."""
    best: ObjectInfo | None = None
    for info in (yield from mounts(self)):
        at = info.fields["path"]
        covers = path == at or path.startswith(at.rstrip("/") + "/")
        if covers and (best is None or len(at) > len(best.fields["path"])):
            best = info
    if best is None:
        raise NotFound(f"nothing is mounted at {path}: see mount")
    return best, path.removeprefix(best.fields["path"]).strip("/")


def rollback(
    self: Self, path: str, *, reload: bool = False, on_progress: OnProgress | None = None
) -> Flow[ObjectInfo]:
    """Have a model's name mean the version before, or of `NAME@VERSION` that version.

    Args:
        path: of the model, such as `/models/mine`.
        reload: what was loaded by the name, without a version, goes over: a handle to a whole model stays, an adapter
            is opened by its name again. `fields["report"]["reloaded"]` says what went.
        on_progress: called with each `Progress`.

    Raises:
        NotFound: there is no such model or version, or none before.
        Denied: the mount, or what is to go over, is not the program's to change.
    """
    mount, inner = yield from mount_of(self, path)
    name, _, version = inner.partition("@")
    options = {"name": name, **({"version": version} if version else {}), **({"reload": True} if reload else {})}
    assert mount.handle is not None
    return (yield from control(self, mount.handle, "rollback", on_progress, **options))


def stat(self: Self, handle: Handle | None = None) -> Flow[ObjectInfo]:
    """The state of the system, or of the object behind a handle."""
    return (yield from ask(calls.StatObject(handle=self.handle if handle is None else handle)))


def control(
    self: Self, handle: Handle, action: str, on_progress: OnProgress | None = None, /, **options: Any
) -> Flow[ObjectInfo]:
    """Act on an object, as in `control(driver.handle, "restart")`; `on_progress` is called with each `Progress`."""
    return (yield from ask(calls.ControlObject(handle=handle, action=action, options=options), on_progress))


def cancel(self: Self, request: str) -> Flow[TaskState]:
    """Cancel a request by its stable id."""
    return (yield from ask(calls.CancelTask(request=request)))


# ---- memory


def buffer(self: Self, size: int) -> Flow[Buffer]:
    """A shared buffer of `size` bytes for large inputs and results."""
    return (yield from ask(calls.AllocBuffer(system=self.handle, bytes=size)))


def lease(
    self: Self, size: int, *, device: str | Handle, ttl: float | None = None, share: bool = False
) -> Flow[Lease]:
    """Reserve `size` bytes of a device, for `ttl` seconds or until it is closed."""
    handle = yield from _device(self, device)
    assert handle is not None
    return (yield from ask(calls.AllocGpu(device=handle, bytes=size, ttl_s=ttl, share=share)))


# ---- files


def open_file(
    self: Self, path: str, mode: Literal["r", "w", "a", "x"] = "r", *, expected_version: str | None = None
) -> Flow[File]:
    """Open a file of the namespace; what is written is seen when it is closed."""
    return (yield from ask(calls.OpenFile(path=path, mode=mode, expected_version=expected_version)))


def read(self: Self, path: str) -> Flow[bytes]:
    """The whole content of a file."""
    opened = yield from open_file(self, path)
    try:
        parts = []
        offset = 0
        while True:
            data = yield from ask(calls.ReadFile(file=opened.handle, offset=offset, count=CHUNK))
            assert isinstance(data.data, bytes)
            parts.append(data.data)
            offset += len(data.data)
            if data.eof or not data.data:
                return b"".join(parts)
    finally:
        yield from ask(calls.CloseHandle(handle=opened.handle))


def write(self: Self, path: str, content: bytes, *, mode: Literal["w", "a", "x"] = "w") -> Flow[int]:
    """Write a whole file; the number of bytes."""
    opened = yield from open_file(self, path, mode)
    offset = opened.bytes if mode == "a" else 0
    for start in range(0, len(content), CHUNK):
        part = content[start : start + CHUNK]
        written = yield from ask(calls.WriteFile(file=opened.handle, offset=offset + start, data=part))
        assert written.count == len(part)
    yield from ask(calls.CloseHandle(handle=opened.handle))
    return len(content)


def entries(self: Self, path: str = "/models") -> Flow[list[Entry]]:
    """What a folder holds, by path."""
    found: list[Entry] = []
    while True:
        page = yield from ask(calls.ListDir(path=path, after=found[-1].path if found else ""))
        found += page
        if len(page) < 1000:
            return found


def stat_path(self: Self, path: str) -> Flow[Entry]:
    """Describe one path."""
    return (yield from ask(calls.StatPath(path=path)))


def remove(self: Self, path: str) -> Flow[Done]:
    """Remove a file, a model or an empty folder."""
    return (yield from ask(calls.RemovePath(path=path)))


def mount(
    self: Self, source: str | Path, path: str, *, filesystem: str = "models", writable: bool = False
) -> Flow[Mount]:
    """Add a file system to this session's namespace; closing the mount removes it."""
    mode: Literal["ro", "rw"] = "rw" if writable else "ro"
    request = calls.MountFs(system=self.handle, path=path, filesystem=filesystem, source=str(source), mode=mode)
    made = yield from ask(request)
    self.mount_handles[self.session, made.path] = made.handle
    return made


def search(
    self: Self, path: str, query: str, *, filters: Mapping[str, Any] | None = None, limit: int = 8
) -> Flow[list[Hit]]:
    """Search below a path, best hits first."""
    return (yield from ask(calls.SearchFs(path=path, query=query, filters=dict(filters or {}), limit=limit)))


# ---- programs and tasks


def spawn(
    self: Self,
    argv: Sequence[str],
    *,
    grants: Iterable[GrantTo] = (),
    mounts: Iterable[MountTo] = (),
    limits: Limits | None = None,
) -> Flow[Task]:
    """Start a program that has exactly these handles and mounts."""
    request = calls.SpawnProgram(
        system=self.handle, argv=list(argv), grants=list(grants), mounts=list(mounts), limits=limits or Limits()
    )
    return (yield from ask(request))


def task(self: Self, name: str) -> Flow[Task]:
    """A task by its id."""
    found = yield from find(self, Kind.TASK, name)
    assert found.handle is not None
    return Task(handle=found.handle, id=found.id, kind=str(found.fields.get("kind", "")), state=found.state)


def transform(
    self: Self, sources: Sequence[str], out: str, recipe: TransformRecipe | Mapping[str, Any]
) -> Flow[Task]:
    """Turn stored models into another one: quantize, prune, merge, export, import, push.

    The recipe may be a map; `quant` in it may be a name such as `w4a16-g64`.
    """
    plan = fill(TransformRecipe(kind=""), recipe, "transform") if isinstance(recipe, Mapping) else recipe
    return (yield from ask(calls.TransformModel(sources=list(sources), out=out, recipe=plan)))


# ---- monitoring


def metrics(self: Self, prefix: str = "") -> Flow[dict[str, Metric]]:
    """Counters, gauges and histograms, by full name with labels."""
    return (yield from ask(calls.ReadMetrics(system=self.handle, prefix=prefix)))


def journal(
    self: Self, *, after: int = -1, about: str = "", level: Level = "info", limit: int = 100
) -> Flow[list[Record]]:
    """Records of the journal: the newest ones, or those after a sequence number."""
    request = calls.ReadJournal(system=self.handle, after=after, about=about, level=level, limit=limit)
    return (yield from ask(request))


def watch(
    self: Self, kinds: Iterable[str] = (), *, about: str = "", credit: int = 64
) -> Flow[Call[Stream[Event, Done]]]:
    """Events as they happen, until the stream is closed."""
    yield from ()
    return calls.WatchEvents(system=self.handle, kinds=list(kinds), about=about, credit=credit)


def unmount(self: Self, path: str) -> Flow[None]:
    """Remove a mount of this session by its path.

    Raises:
        NotFound: nothing is mounted there.
    """
    found = yield from find(self, Kind.MOUNT, path)
    # The mount lasts while any handle to it is open: the one it was made with, and the one the listing made.
    made = self.mount_handles.pop((self.session, found.name), None)
    for handle in {found.handle, made}:
        if handle is not None:
            with contextlib.suppress(BadHandle):
                yield from ask(calls.CloseHandle(handle=handle))
    for key, target in list(self.mounted.items()):
        if target == path:
            del self.mounted[key]


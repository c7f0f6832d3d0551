"""Models by the name that requests use: found among the loaded ones, or loaded at the first request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llmos.syscalls.errors import (
    BadArgument, BadHandle, BadState, Busy, Denied, Exists, LlmosError, NotDirectory, NotFound, NotSupported, PeerGone,
)  # fmt: skip
from llmos.syscalls.types import Entry as FileEntry
from llmos.syscalls.types import ObjectInfo
from llmos.userland.async_objects import AsyncModel, AsyncSystem

from ..native import confine
from .caller import Caller
from .errors import model_not_found
from .sessions import Sessions
from .settings import Settings

R = TypeVar("R")

Loaded = Callable[[float], None]
"""Is told how many seconds a request waited until its model was loaded."""

ROOT = "/models"
_STALE = (NotFound, BadHandle, PeerGone)
"""What a request ends with when its model has left since it was found."""


def untold(seconds: float) -> None:
    """For who does not want to know it."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as lists show it."""

    id: str
    """The name people use: `tiny`, `org/name`."""
    path: str
    state: str
    """`stored`, or how a loaded one is: awake, asleep, loading, ..."""
    tasks: list[str]
    context: int
    created: int
    """Seconds since the epoch."""
    owned_by: str
    adapter_of: str
    chat: bool = False
    """Whether it takes chats, as far as is known before it is loaded."""
    version: str = ""
    bytes: int = 0
    """On its device when it is loaded, else in the store."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """All that its object or its entry in the store says."""


class Models:
    """Finds and loads models for requests.

    Loads run in the gateway's own session: a model belongs to all keys that may use it, not to the first that asked.
    """

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self._settings = settings
        self._sessions = sessions
        self._loads: dict[str, asyncio.Task[str]] = {}

    async def get(
        self, caller: Caller, name: str, *, keep_alive: float | None = None, wanted_task: str = "",
        on_load: Loaded = untold,
    ) -> AsyncModel:  # fmt: skip
        """The model in the caller's session; a stored one is loaded first.

        Args:
            name: an alias of the settings, a loaded model's name or id, `name`, `org/name`, `name@version`,
                `name:tag`, or a path below /models; an adapter's name loads its base too.
            keep_alive: seconds without use until it may sleep, for a model that is loaded now.
            wanted_task: a task that it must do.
            on_load: is called when it had to be loaded first.

        Raises:
            HttpError: 404 model_not_found: there is none, or the key may not use it.
            NotSupported: it does not do the task.
        """
        entry = await self._sessions.entry(caller)
        found = entry.models.get(name)
        if found is None:
            found = await self._find(caller, entry.system, name, keep_alive, on_load)
            entry.models[name] = found
        if wanted_task and wanted_task not in found.info.tasks:
            offered = ", ".join(found.info.tasks)
            raise NotSupported(f"the model {name!r} does not do {wanted_task}; it does {offered}", why="no such task")
        return found

    async def use(
        self,
        caller: Caller,
        name: str,
        work: Callable[[AsyncModel], Awaitable[R]],
        *,
        keep_alive: float | None = None,
        wanted_task: str = "",
        on_load: Loaded = untold,
    ) -> R:
        """Do something with the model, once more when it has left since it was found.

        `work` must not have shown anything of its result yet when it fails.
        """
        entry = await self._sessions.entry(caller)
        known = name in entry.models
        how: dict[str, Any] = {"keep_alive": keep_alive, "wanted_task": wanted_task, "on_load": on_load}
        model = await self.get(caller, name, **how)
        try:
            return await work(model)
        except _STALE as error:
            entry.models.pop(name, None)
            if not known or (isinstance(error, PeerGone) and not entry.system.client.ended):
                raise
        return await work(await self.get(caller, name, **how))

    async def state(self, caller: Caller, name: str) -> ObjectInfo | None:
        """A loaded model as it is now; None when none of that name is loaded, or the caller may not use it."""
        wanted = self._settings.aliases.get(name, name)
        if not (caller.may_use(plain(name)) or caller.may_use(plain(wanted))):
            return None
        system = await self._sessions.system(caller)
        return _matching(await system.models(), wanted, path_of(wanted), failed=True)

    async def is_stored(self, caller: Caller, name: str) -> bool:
        """Whether a request of the caller for this name would find a model, loaded or not."""
        wanted = self._settings.aliases.get(name, name)
        if not (caller.may_use(plain(name)) or caller.may_use(plain(wanted))):
            return False
        own = await self._sessions.own()
        try:
            return (await own.stat_path(confine.path(caller, path_of(wanted)))).kind == "model"
        except (Denied, BadArgument, NotFound, NotDirectory):
            return False

    async def keep_alive(self, model: AsyncModel, seconds: float) -> None:
        """How long the model stays awake from now on without use; 0 lets it sleep at once."""
        own = await self._sessions.own()
        try:
            info = await own.find("model", model.info.id)
            assert info.handle is not None
            await own.control(info.handle, "keep_alive", seconds=float(seconds))
            if seconds == 0:
                await own.control(info.handle, "sleep")
        except (NotFound, BadState, NotSupported, Busy):
            return  # it has left, or others use it: then it sleeps after their requests; the answer is there already

    # ---- finding

    async def _find(
        self, caller: Caller, system: AsyncSystem, name: str, keep_alive: float | None, on_load: Loaded
    ) -> AsyncModel:
        wanted = self._settings.aliases.get(name, name)
        if not name or not (caller.may_use(plain(name)) or caller.may_use(plain(wanted))):
            raise model_not_found(name)
        try:
            path = confine.path(caller, path_of(wanted))
        except (Denied, BadArgument):
            raise model_not_found(name) from None
        loaded = _matching(await system.models(), wanted, path)
        if loaded is not None and loaded.id != wanted and (other := str(loaded.fields.get("path", ""))) != path:
            # Loaded under a name that somebody chose: it neither hides a stored model nor opens one to a key.
            if not caller.may_use(plain(other)):
                raise model_not_found(name)
            loaded = None if await self.is_stored(caller, name) else loaded
        if loaded is None and not self._settings.load_on_request:
            raise model_not_found(name, "it is not loaded, and this gateway loads none by itself")
        if loaded is not None:
            return await system.model(loaded.id)
        began = time.perf_counter()
        found = await self._loaded(name, path, keep_alive)
        on_load(time.perf_counter() - began)
        return await system.model(found)

    async def _loaded(self, name: str, path: str, keep_alive: float | None) -> str:
        """The id of the model, once it is loaded; requests that come meanwhile wait for the same load."""
        task = self._loads.get(path)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(name, path, keep_alive))
            self._loads[path] = task
            task.add_done_callback(lambda done: self._loads.pop(path, None) and done.cancelled())
        return await asyncio.shield(task)

    async def _load(self, name: str, path: str, keep_alive: float | None) -> str:
        own = await self._sessions.own()
        try:
            entry = await own.stat_path(path)
        except (NotFound, NotDirectory, BadArgument):
            raise model_not_found(name) from None
        if entry.kind != "model":
            raise model_not_found(name, f"that is a {entry.kind}")
        seconds = self._settings.keep_alive if keep_alive is None else keep_alive
        timeout = self._settings.request_s
        base = base_path(entry.fields)
        if base:
            over = await own.load_model(base, keep_alive=seconds, timeout=timeout)
            model = await own.load_model(path, base=over, adapter=True, keep_alive=seconds, timeout=timeout)
        else:
            try:
                model = await own.load_model(path, keep_alive=seconds, timeout=timeout)
            except Exists:  # another model was given its name
                other = path.strip("/").replace("/", ".")
                model = await own.load_model(path, name=other, keep_alive=seconds, timeout=timeout)
        return model.info.id

    # ---- lists

    async def listed(self, caller: Caller) -> list[ListedModel]:
        """All models that the caller may use: those that are loaded, and those that are stored; each once."""
        system = await self._sessions.system(caller)
        loaded = [_of_loaded(info) for info in await system.models()]
        known = {model.path.partition("@")[0] for model in loaded}
        stored = [_of_stored(entry) for entry in await _stored(system, ROOT) if entry.path not in known]
        each = {model.id: model for model in (*stored, *loaded)}
        return [model for name, model in sorted(each.items()) if caller.may_use(plain(name))]


def plain(name: str) -> str:
    """A name without /models and version, as the patterns of keys mean it."""
    return name.removeprefix(f"{ROOT}/").partition("@")[0].partition(":")[0]


def path_of(name: str) -> str:
    """The path that a name means: `org/name:tag` is `/models/org/name@tag`."""
    path = name if name.startswith("/") else f"{ROOT}/{name}"
    head, slash, last = path.rpartition("/")
    return f"{head}{slash}{last.replace(':', '@', 1)}"


def base_path(fields: Mapping[str, Any]) -> str:
    """The path of the model that an adapter is for; empty for a whole model."""
    for parent in fields.get("parents") or ():
        if isinstance(parent, Mapping) and parent.get("how") == "adapter" and parent.get("path"):
            version = parent.get("version")
            return f"{parent['path']}@{version}" if version else str(parent["path"])
    return ""


def _matching(loaded: list[ObjectInfo], name: str, path: str, failed: bool = False) -> ObjectInfo | None:
    by_path = [info for info in loaded if path == info.fields.get("path") or name == info.id]
    for info in (*by_path, *loaded):
        if not failed and (info.health == "failed" or "architecture" not in info.fields):
            continue  # what is on its way for the first time is waited for by loading it, which joins that load
        if name in (info.name, info.id) or info.fields.get("path") in (name, path):
            return info
    return None


def _of_loaded(info: ObjectInfo) -> ListedModel:
    fields = info.fields
    path = str(fields.get("path", ""))
    known = path.removeprefix(f"{ROOT}/").partition("@")[0] if path.startswith(f"{ROOT}/") else info.name
    name = known if known.rpartition("/")[2] == info.name else info.name
    return ListedModel(
        name, path, info.state, list(fields.get("tasks", ())), int(fields.get("context", 0)), int(info.since), "llmos",
        str(fields.get("base", "")), bool(fields.get("chat")), str(fields.get("version", "")), info.bytes, fields,
    )  # fmt: skip


def _of_stored(entry: FileEntry) -> ListedModel:
    name = entry.path.removeprefix(f"{ROOT}/")
    owner = name.partition("/")[0] if "/" in name else "llmos"
    fields = entry.fields
    return ListedModel(
        name, entry.path, "stored", list(fields.get("tasks") or ()), int(fields.get("context") or 0), int(entry.mtime),
        owner, base_path(fields), bool(fields.get("chat_template")), entry.version, entry.bytes, fields,
    )  # fmt: skip


async def _stored(system: AsyncSystem, path: str) -> list[FileEntry]:
    """All models below a path; what cannot be listed now holds none."""
    found: list[FileEntry] = []
    try:
        entries = await system.list(path)
    except LlmosError:
        return found
    for entry in entries:
        if entry.kind == "model":
            found.append(entry)
        elif entry.kind == "folder":
            found += await _stored(system, entry.path)
    return found

"""Transformations: bringing a model from elsewhere, sending one away, and making one of others.

Each is a job in a process of its own (`llmos.drivers.worker`), which the kernel starts, watches, pauses and ends by
signals as it does with programs. So a download or an hour of quantizing blocks no file system and no device, and a
crash costs one job. The worker says how far it is, and at the end what came of it, as lines of JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from llmos.syscalls.calls import TransformModel
from llmos.syscalls.describe import suggest
from llmos.syscalls.driver import Located
from llmos.syscalls.errors import BadArgument, Denied, DriverFailed, LlmosError, NotSupported, OverQuota, from_wire
from llmos.syscalls.types import Kind, Task
from llmos.syscalls.wire import Progress

from .children import Child, exit_text
from .locating import locate, release
from .namespace import normalize, told_from_outside
from .objects import TaskObject
from .policy import KERNEL_FILESYSTEM
from .requests import Request
from .supervisor import Driver

if TYPE_CHECKING:
    from .core import Kernel

KINDS: Mapping[str, tuple[int, int]] = {
    "import": (1, 1), "push": (1, 1), "export": (1, 1), "quantize": (1, 64), "prune": (1, 64), "merge": (2, 64),
}  # fmt: skip
"""What can be done, and how many sources it takes at least and at most."""
WORKER = ("-P", "-m", "llmos.drivers.worker")
_ENVIRON = {
    "OMP_WAIT_POLICY": "passive", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}  # fmt: skip
Held = list[tuple[Driver, Located]]


class Said(msgspec.Struct):
    """One line of a worker; what is none goes to the journal."""

    progress: Progress | None = None
    value: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class TransformService:
    """Jobs that bring, send and make models."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def start(self, request: Request, call: TransformModel) -> Task:
        """Begin a job.

        Raises:
            NotSupported: a kind of transformation that there is not.
            BadArgument, Denied, NotFound, ReadOnly, BadModel, OverQuota.
        """
        self._check(request, call)
        held: Held = []
        try:
            job, out = await self._job(request, call, held)
            return self._spawn(request, call, job, out, held)
        except LlmosError:
            self._release(held)
            raise

    def _check(self, request: Request, call: TransformModel) -> None:
        session = request.session
        _check_recipe(call)
        if session.peer.uid != self._kernel.uid and any(_is_url(each) for each in (*call.sources, call.out)):
            # The worker would reach the network, and use the keys of the hub, as the kernel's own user.
            raise Denied("transform_model: only programs of the kernel's own user may name URLs", missing="uid")
        self._kernel.tasks.check_jobs(session.owner)

    async def _job(self, request: Request, call: TransformModel, held: Held) -> tuple[dict[str, Any], tuple[str, str]]:
        """What the worker is told, and the path of the model inside and outside of its file system."""
        kernel, mounts = self._kernel, request.session.mounts
        job: dict[str, Any] = {"recipe": msgspec.to_builtins(call.recipe)}
        if _is_url(call.out):
            path, job["target"] = call.sources[0], call.out
            point, inner = mounts.resolve(path)
        else:
            path = call.out
            point, inner = mounts.writable(path)
            job["sources"] = [await self._source(request, source, held) for source in call.sources]
            job["names"] = [source if _is_url(source) else normalize(source) for source in call.sources]
        if point.filesystem == KERNEL_FILESYSTEM:
            raise NotSupported(f"{path} is made by the kernel", why="not a stored model")
        driver = kernel.filesystem(point.filesystem, path)
        job |= {"driver": driver.name, "source": point.source, "config": driver.settings.config, "path": inner}
        return job, (inner, normalize(path))

    async def _source(self, request: Request, source: str, held: Held) -> Any:
        if _is_url(source):
            return source
        held.append(await locate(self._kernel, request.session, source))
        return held[-1][1]

    def _spawn(
        self, request: Request, call: TransformModel, job: dict[str, Any], out: tuple[str, str], held: Held
    ) -> Task:
        kernel, session = self._kernel, request.session
        name = f"{call.recipe.kind} {out[1]}"
        task = TaskObject(
            id=kernel.new_id("t"), kind=Kind.TASK, name=name, owner=session.owner, argv=[], work=call.recipe.kind
        )
        handle = kernel.add_object(task, session, kernel.sessions.rights_of_maker(session, task))
        environ = {**os.environ, **_ENVIRON, "LLMOS_HOME": str(kernel.config.paths.home)}
        environ["LLMOS_PARENT_PID"] = str(kernel.pid)
        fd = os.memfd_create("llmos-job")
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(msgspec.json.encode(job))
            os.lseek(fd, 0, os.SEEK_SET)
            task.child = Child(
                [sys.executable, *WORKER, "--job-fd", str(fd)],
                environ,
                kernel.runner,
                kernel.watcher,
                lambda status: self._ended(task, status, out, held),
                lambda line: self._line(task, line, out),
                new_group=True,
                pass_fds=(fd,),
            )
        except OSError as error:
            kernel.remove_object(task)
            raise OverQuota(f"the job cannot be started: {error}", what="processes") from None
        finally:
            os.close(fd)
        session.roots[task.id] = handle
        kernel.log("task", f"{task.id}: {task.work} {call.sources[0]} to {call.out}", task.id)
        kernel.emit("task", task.id, state="running", work=task.work, name=name)
        return Task(handle=handle, id=task.id, kind=task.work, state="running")

    def _line(self, task: TaskObject, line: str, out: tuple[str, str]) -> None:
        """A line of the worker."""
        if not line:
            return
        try:
            said = msgspec.json.decode(line, type=Said)
        except msgspec.DecodeError:
            self._kernel.journal.write("task", "debug", line, task.id)
            return
        if said.progress is not None:
            p = said.progress
            task.progress = {"done": p.done, "total": p.total, "unit": p.unit, "stage": p.stage}
            self._kernel.emit("task", task.id, state=task.status, **task.progress)
        if said.value is not None:
            task.value = {**said.value, "path": out[1].partition("@")[0]}
        if said.error is not None:
            task.value = {"error": _outside(from_wire(said.error), out).to_wire()}

    def _ended(self, task: TaskObject, status: int, out: tuple[str, str], held: Held) -> None:
        """The worker is gone; only what it has said at its end counts as a result."""
        assert task.child is not None
        self._release(held)
        error = None if task.value is None else task.value.get("error")
        if task.value is not None and error is None:
            state, text = "done", _sentence(task.value)
            if "total" in task.progress:  # the last steps were too quick to be told
                task.progress["done"] = task.progress["total"]
        elif task.status == "cancelled":
            state, text, task.value = "cancelled", "cancelled; nothing was stored", {}
        else:
            if error is None:
                cause = exit_text(status)
                self._kernel.log("task", f"{task.id} said: {task.child.tail()}", task.id, level="debug")
                lost = DriverFailed(f"{task.name}: the worker ended ({cause}); start the job again", cause=cause)
                error = lost.to_wire()
                task.value = {"error": error}
            state, text = "failed", str(error["message"])
        self._kernel.tasks.finish(task, status, state, text)

    def _release(self, held: Sequence[tuple[Driver, Located]]) -> None:
        for driver, located in held:
            release(driver, located)


def _check_recipe(call: TransformModel) -> None:
    """Whether there is such a kind, which takes such sources and such a result. Raises NotSupported, BadArgument."""
    kind, count = call.recipe.kind, len(call.sources)
    if kind not in KINDS:
        text = f"transform_model: {kind!r} is no kind of transformation; {suggest(kind, KINDS)}"
        raise NotSupported(text, why="unknown kind")
    least, most = KINDS[kind]
    if not least <= count <= most:
        want = f"{least}" if least == most else f"{least} to {most}"
        text = f"transform_model: {kind} takes {want} {'source' if most == 1 else 'sources'}, {count} are given"
        raise BadArgument(text, name="sources", got=str(count), want=want)
    for name, paths, other in (("sources", call.sources, "import"), ("out", [call.out], "push")):
        url = next((path for path in paths if _is_url(path)), None)
        if url is not None and kind != other:
            text = f"transform_model: {kind} takes paths of the namespace in {name}, not {url}"
            raise BadArgument(text, name=name, got=url, want="a path")


def _is_url(text: str) -> bool:
    """Whether it names something outside of this machine: `hf:ORG/NAME`, `http://...`; paths start with a slash."""
    return not text.startswith("/") and ":" in text


def _outside(error: LlmosError, out: tuple[str, str]) -> LlmosError:
    """The same error; the paths in its text are those that the program uses."""
    with suppress(LlmosError), told_from_outside(*out):
        raise error
    return error


def _sentence(value: Mapping[str, Any]) -> str:
    version = f"@{value['version']}" if value.get("version") else ""
    measured = value.get("metrics") or {}
    told = "".join(f", {name.replace('_', ' ')} {number:g}" for name, number in measured.items() if _is_number(number))
    return f"{value['path']}{version}: {value.get('files', 0)} files, {value.get('bytes', 0)} bytes{told}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Tasks: programs that the kernel runs for a session, with exactly the handles and mounts they are given, and jobs of
its own (`transforms`); waiting for them, ending and pausing them.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

from llmos.syscalls.calls import SpawnProgram
from llmos.syscalls.errors import BadArgument, BadState, Denied, NotFound, OverQuota
from llmos.syscalls.types import Kind, ObjectInfo, Reason, Right, Task, TaskResult

from .children import Child, exit_text
from .objects import TaskObject
from .policy import narrower
from .requests import Request
from .session import new_token

if TYPE_CHECKING:
    from .core import Kernel

ENDED = frozenset({"done", "failed", "cancelled"})
JOBS = 8
"""Jobs of the kernel's own that may run at a time for one user."""
_KEEP = 1000


class TaskService:
    """All tasks, running and ended."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def spawn(self, request: Request, call: SpawnProgram) -> Task:
        """Start a program. Only for the kernel's own user: another one's would run with the kernel's identity."""
        kernel, session = self._kernel, request.session
        if session.peer.uid != kernel.uid:
            raise Denied("only the kernel's own user may start programs here", missing="uid")
        entries = [
            kernel.handles.get(session.id, grant.handle, None, (Right.GRANT,), "grants") for grant in call.grants
        ]
        for grant, entry in zip(call.grants, entries, strict=True):
            missing = (grant.rights or frozenset()) - entry.rights
            if missing:
                raise Denied(f"grants: handle {grant.handle} lacks {', '.join(sorted(missing))}", missing=min(missing))
        mounts = session.mounts.narrowed((mount.path, mount.mode) for mount in call.mounts)
        program = shutil.which(call.argv[0])
        if program is None:
            raise NotFound(f"there is no program {call.argv[0]!r} on the path")
        self.check_room(session.owner)
        task = TaskObject(
            id=kernel.new_id("t"), kind=Kind.TASK, name=call.argv[0], owner=session.owner, argv=list(call.argv)
        )
        token = new_token()
        environ = {
            **os.environ,
            "LLMOS_RUNTIME_DIR": str(kernel.config.paths.runtime),
            "LLMOS_SESSION": token,
            "LLMOS_TASK": task.id,
        }
        handle = kernel.add_object(task, session, kernel.sessions.rights_of_maker(session, task))
        try:
            task.child = Child(
                [program, *call.argv[1:]],
                environ,
                kernel.runner,
                kernel.watcher,
                lambda status: self._ended(task, status),
                lambda line: kernel.journal.write("program", "debug", line, task.id),
                new_group=True,
            )
        except (OSError, ValueError) as error:
            kernel.remove_object(task)
            raise BadArgument(f"{call.argv[0]!r} cannot be started: {error}", name="argv", got=call.argv[0]) from None
        session.roots[task.id] = handle
        child_session = kernel.sessions.prepare(
            task.child.pid, call.argv[0], session, mounts, narrower(session.limits, call.limits), task.id, token
        )
        task.session = child_session
        for grant, entry in zip(call.grants, entries, strict=True):
            rights = grant.rights if grant.rights is not None else entry.rights
            made = kernel.handles.grant(session.id, entry.handle, child_session.id, rights)
            child_session.roots[made.object] = made.handle
            if made.kind is Kind.SYSTEM:
                child_session.system = made.handle
        kernel.log("task", f"{task.id} runs {' '.join(call.argv)!r} (pid {task.child.pid})", task.id)
        kernel.emit("task", task.id, state="running")
        return Task(handle=handle, id=task.id, kind="program", state="running")

    def check_room(self, owner: str) -> None:
        """Raises OverQuota when a user has too many tasks."""
        running = [t for t in self.all() if t.owner == owner and t.status not in ENDED]
        if len(running) >= _KEEP:
            raise OverQuota(f"{_KEEP} programs of this user run already", what="programs", limit=_KEEP)

    def check_jobs(self, owner: str) -> None:
        """Raises OverQuota when a user has too many tasks, or too many jobs among them."""
        self.check_room(owner)
        mine = [t for t in self.all() if t.owner == owner and t.work != "program" and t.status not in ENDED]
        if len(mine) >= JOBS:
            raise OverQuota(f"{JOBS} jobs of this user run already; wait for one", what="jobs", limit=JOBS)

    def started(self, pid: int) -> bool:
        """Whether a process is a program of ours or was started by one and stayed in its session (setsid(2))."""
        try:
            leader = os.getsid(pid)
        except ProcessLookupError:
            return False
        return any(task.child is not None and task.child.pid in (pid, leader) for task in self.all())

    def all(self) -> list[TaskObject]:
        return [o for o in self._kernel.objects.values() if isinstance(o, TaskObject)]

    def _ended(self, task: TaskObject, status: int) -> None:
        assert task.child is not None
        task.output = task.child.tail(50)
        state = "cancelled" if task.status == "cancelled" else "done" if status == 0 else "failed"
        self.finish(task, status, state, exit_text(status))

    def finish(self, task: TaskObject, status: int, state: str, text: str) -> None:
        """The process of a task has ended, and this is what became of it."""
        kernel = self._kernel
        task.exit, task.child, task.status = status, None, state
        task.why = [kernel.reason("task.ended", text)]
        kernel.log("task", f"{task.id} is {task.status}: {text}", task.id, task.why)
        kernel.emit("task", task.id, state=task.status, exit=status)
        waiters, task.waiters = task.waiters, []
        for waiter in waiters:
            waiter.set(task.result())
        self._forget_old()

    def _forget_old(self) -> None:
        """Ended tasks are kept for whoever asks, the oldest 1000th and beyond are not."""
        ended = [t for t in self.all() if t.status in ENDED]
        for task in ended[:-_KEEP]:
            self._kernel.remove_object(task)

    async def wait(self, task: TaskObject) -> TaskResult:
        if task.status in ENDED:
            return task.result()
        future = self._kernel.runner.future()
        task.waiters.append(future)
        result: TaskResult = await future
        return result

    async def cancel(self, task: TaskObject, grace_s: float) -> None:
        """End a program: SIGTERM, then SIGKILL after `grace_s` seconds; a job of a driver there. Returns when it has
        ended."""
        tuned = self._kernel.tunes.of(task)
        if tuned is not None:
            self._kernel.tunes.cancel(tuned)
        elif task.child is None:
            return
        else:
            task.status = "cancelled"
            task.child.signal(signal.SIGCONT)
            task.child.terminate(grace_s)
        future = self._kernel.runner.future()
        task.waiters.append(future)
        await future

    def pause(self, task: TaskObject) -> ObjectInfo:
        self._check(task, "running")
        tuned = self._kernel.tunes.of(task)
        if tuned is not None:
            self._kernel.tunes.pause(tuned)
        else:
            assert task.child is not None
            task.child.signal(signal.SIGSTOP)
        return self._changed(task, "paused")

    def resume(self, task: TaskObject) -> ObjectInfo:
        if task.status == "failed" and self._kernel.tunes.again(task):
            return task.describe()
        self._check(task, "paused")
        tuned = self._kernel.tunes.of(task)
        if tuned is not None:
            self._kernel.tunes.resume(tuned)
        else:
            assert task.child is not None
            task.child.signal(signal.SIGCONT)
        return self._changed(task, "running")

    def priority(self, task: TaskObject, nice: int) -> ObjectInfo:
        """Set the nice value of a program: 0 normal, 19 lowest; a tuning job is background work above 0, else batch."""
        tuned = self._kernel.tunes.of(task)
        if tuned is not None:
            self._kernel.tunes.priority(tuned, nice)
            return task.describe()
        if task.child is None:
            raise BadState(f"{task.id} has ended", state=task.status)
        try:
            os.setpriority(os.PRIO_PGRP, task.child.pid, nice)
        except PermissionError:
            raise Denied(f"priority: a kernel without root may not set nice to {nice}", missing="root") from None
        return task.describe()

    def _check(self, task: TaskObject, wanted: str) -> None:
        if task.status != wanted:
            raise BadState(f"{task.id} is {task.status}, not {wanted}", state=task.status)

    def _changed(self, task: TaskObject, state: str) -> ObjectInfo:
        task.status = state
        task.why = [Reason(code=f"task.{state}", text="on request", at=self._kernel.wall())]
        self._kernel.emit("task", task.id, state=state)
        return task.describe()

    def kill_all(self) -> None:
        for task in self.all():
            if task.child is not None:
                task.status = "cancelled"
                task.child.signal(signal.SIGCONT)
                task.child.terminate()

    def kill_now(self) -> None:
        """Kill what is left and wait for it: for the end of the kernel."""
        for task in self.all():
            if task.child is not None:
                task.child.kill_now()
                task.child = None

    @property
    def running(self) -> bool:
        return any(task.child is not None for task in self.all())

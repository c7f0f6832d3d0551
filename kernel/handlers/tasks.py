"""Programs and tasks."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, NotFound
from llmos.syscalls.types import Task, TaskResult, TaskState

from ..objects import TaskObject
from ..requests import Request
from .registry import implements


def _task(request: Request) -> TaskObject:
    found = request.kernel.object_of(request.entries["task"])
    assert isinstance(found, TaskObject)
    return found


@implements(calls.SpawnProgram)
def spawn_program(request: Request, call: calls.SpawnProgram) -> Task:
    return request.kernel.tasks.spawn(request, call)


@implements(calls.WaitTask)
async def wait_task(request: Request, call: calls.WaitTask) -> TaskResult:
    return await request.kernel.tasks.wait(_task(request))


@implements(calls.CancelTask)
async def cancel_task(request: Request, call: calls.CancelTask) -> TaskState:
    kernel = request.kernel
    if (call.task is None) == (not call.request):
        raise BadArgument("cancel_task: give either a task or a request id", name="task", want="one of the two")
    if call.task is not None:
        task = _task(request)
        await kernel.tasks.cancel(task, call.grace_s)
        return TaskState(id=task.id, state=task.status)
    found = kernel.requests.get(call.request)
    if found is None or not kernel.sessions.may_end(request.session, found.session):
        raise NotFound(f"cancel_task: no request {call.request!r} of yours is in flight")
    ended = kernel.runner.future()
    found.ended.append(ended)
    kernel.dispatcher.cancel(found)
    await ended
    return TaskState(id=call.request, state="cancelled")

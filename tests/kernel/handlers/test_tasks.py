"""Programs and requests, waited for and cancelled."""

from __future__ import annotations

import os
from pathlib import Path

from scripted import Inside, Program, inside

from llmos.kernel.session import Peer
from llmos.syscalls.errors import BadArgument, Cancelled, NotFound


def sleeper(program: Program) -> dict:
    value: dict = program.call("spawn_program", system=program.system, argv=["sleep", "600"])
    return value


def test_the_end_of_a_program_can_be_waited_for(live: Inside) -> None:
    program = live.program()
    task = program.call("spawn_program", system=program.system, argv=["sh", "-c", "echo done; exit 3"])
    result = program.call("wait_task", task=task["handle"])
    assert (result["state"], result["exit"], result["value"]["output"]) == ("failed", 3, "done")
    assert program.call("wait_task", task=task["handle"]) == result


def test_a_program_can_be_cancelled(live: Inside) -> None:
    program = live.program()
    task = sleeper(program)
    assert program.call("cancel_task", task=task["handle"])["state"] == "cancelled"
    assert program.call("wait_task", task=task["handle"])["exit"] == -15
    assert program.call("cancel_task", task=task["handle"])["state"] == "cancelled"


def test_a_request_can_be_cancelled_by_its_id(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    running = [program.start(model, "a"), program.start(model, "b")]
    waiting = program.start(model, "c")
    request = next(r for r in kernel.kernel.requests.values() if kernel.kernel.scheduler.position(r.id))
    assert program.call("cancel_task", request=request.id)["state"] == "cancelled"
    assert isinstance(program.answers[waiting].error, Cancelled)
    for number in running:
        kernel.null.release("submit")
        program.wait(number)
    assert isinstance(program.error("cancel_task", request=request.id), NotFound)


def test_either_a_task_or_a_request_is_named(program: Program) -> None:
    assert isinstance(program.error("cancel_task"), BadArgument)


def test_requests_of_another_user_cannot_be_cancelled(folder: Path) -> None:
    with inside(folder, '[policy.default.handles]\nsystem = "all"\n', drivers="") as kernel:
        program, stranger = kernel.program(), kernel.program(Peer(12345, 12345, os.getpid()))
        number = program.send("watch_events", system=program.system)
        request = next(iter(kernel.kernel.requests))
        assert isinstance(stranger.error("cancel_task", request=request), NotFound)
        program.cancel(number)


def test_a_tenant_cannot_cancel_its_users_requests_but_is_cancelled_by_it(kernel: Inside, program: Program) -> None:
    tenant = kernel.program(tenant="a")
    mine = program.send("watch_events", system=program.system)
    theirs = tenant.send("watch_events", system=tenant.system)
    first, second = kernel.kernel.requests
    assert isinstance(tenant.error("cancel_task", request=first), NotFound)
    program.call("cancel_task", request=second)
    assert tenant.wait(theirs).error is None
    program.cancel(mine)

"""Every number that `why` prints, against what it was taken from: the ledger, the clock, the scheduler, the answer.

Those of an answer and of a driver's restarts are compared on a real kernel (userland/cli/commands/test_explaining);
those of alerts and advice in test_alarms and test_advising.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import MEMORY, Inside, Program, inside, loaded, rows

from llmos.kernel.cooling import LASTING
from llmos.kernel.restart import GiveUp, Restart, RestartPolicy, RestartRules
from llmos.kernel.scheduler import SECOND, Expire, Scheduler, Start, Ticket
from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import Busy, NoDeviceMemory
from llmos.syscalls.events import Overrun
from llmos.syscalls.types import Reason

SIZE = 400 << 10


@pytest.fixture
def kernel(folder: Path) -> Iterator[Inside]:
    """A device for two models of this size."""
    with inside(folder, '[memory]\npolicy = "lru"\n', drivers="null0,models") as kernel:
        kernel.null.answers |= {"plan": PlanRows(rows=rows(SIZE)), "load": loaded(SIZE), "wake": loaded(SIZE)}
        yield kernel


def _told(kernel: Inside, about: str, code: str) -> Reason:
    """The newest reason of a code, as `why` reads it."""
    records = kernel.kernel.decisions.read(about=about)
    found = [reason for record in records for reason in record.reasons if reason.code == code]
    assert found, f"{about} has no {code}: {[record.text for record in records]}"
    return found[-1]


def _id(kernel: Inside, name: str) -> str:
    model = kernel.kernel.models.named(name)
    assert model is not None
    return model.id


def test_room_that_was_there(kernel: Inside) -> None:
    ledger = kernel.kernel.ledger
    free, total = ledger.free("null0"), ledger.total("null0")
    kernel.program().load("fox")
    numbers = _told(kernel, _id(kernel, "fox"), "memory.admitted").numbers
    assert numbers == {"needed": SIZE, "free": free, "total": total}
    assert ledger.free("null0") == free - SIZE


def test_room_that_was_made(kernel: Inside) -> None:
    program, ledger = kernel.program(), kernel.kernel.ledger
    program.load("fox")
    used = kernel.now
    kernel.now += 7_000_000_000
    program.load("owl")
    kernel.now += 5_000_000_000
    free, held = ledger.free("null0"), ledger.held(kernel.kernel.models.by_id[_id(kernel, "fox")].host_id)
    program.load("elk")
    evicted = _told(kernel, _id(kernel, "fox"), "model.evicted")
    assert evicted.numbers["needed"] == SIZE - free and evicted.numbers["frees"] == held == SIZE
    assert evicted.numbers["idle_s"] == (kernel.now - used) / 1e9 == 12
    assert _told(kernel, "null0", "model.evicted") == _told(kernel, _id(kernel, "elk"), "model.evicted") == evicted
    assert evicted.change and evicted.rule


def test_room_that_could_not_be_made(kernel: Inside) -> None:
    program, ledger = kernel.program(), kernel.kernel.ledger
    program.load("fox", pin=True)
    free, total = ledger.free("null0"), ledger.total("null0")
    kernel.null.answers["plan"] = PlanRows(rows=rows(total))
    error = program.error("load_model", path="/models/big", device=program.grants["null0"])
    assert isinstance(error, NoDeviceMemory)
    for about in ("null0", error.request):
        numbers = _told(kernel, about, "memory.refused").numbers
        assert (numbers["needed"], numbers["free"]) == (error.needed, error.free) == (total, free)
        assert numbers["evictable"] == error.evictable == 0
    ended = _told(kernel, error.request, "request.refused")
    assert ended.numbers["needed"] == total and ended.numbers["after_s"] == 0.0


def test_sleep_after_the_keep_alive_time(kernel: Inside) -> None:
    kernel.program().load("fox", keep_alive=30)
    kernel.advance(31)
    numbers = _told(kernel, _id(kernel, "fox"), "model.idle").numbers
    assert numbers == {"idle_s": 31.0, "keep_alive_s": 30.0}


def test_waiting_starting_and_the_answer(kernel: Inside) -> None:
    program: Program = kernel.program()
    model = program.load("fox")
    numbers = [program.start(model, "x") for _ in range(4)]
    kernel.now += 3_000_000_000
    scheduler, lane = kernel.kernel.scheduler, _id(kernel, "fox")
    last = scheduler.waiting(lane)[-1].id
    waits = scheduler.explain(last, kernel.now)
    assert waits is not None and waits.code == "request.waits"
    counts = {"waiting": len(scheduler.waiting(lane)), "running": len(scheduler.running(lane)), "slots": 2}
    assert {name: waits.numbers[name] for name in counts} == counts
    assert (waits.numbers["position"], waits.numbers["waited_s"]) == (scheduler.position(last), 3.0)
    answers = []
    for number in numbers:
        kernel.null.release("submit")
        answers.append(program.wait(number).value)
        kernel.now += 1_000_000_000
    for answer in answers:
        start, done = (_told(kernel, answer["id"], code) for code in ("request.start", "request.done"))
        timing, usage = answer["timing"], answer["usage"]
        assert start.numbers["waited_s"] == done.numbers["waited_s"] == timing["queued"] / 1e9
        assert done.numbers["total_s"] == timing["total"] / 1e9
        assert done.numbers["new_tokens"] == usage["new_tokens"]


def test_where_a_model_was_placed(kernel: Inside) -> None:
    program = kernel.program()
    answer: dict[str, Any] = program.call("load_model", path="/models/fox")
    placed = _told(kernel, answer["id"], "device.placed")
    devices = [name for name in program.grants if name.startswith("null")]
    assert placed.numbers == {"devices": len(devices), "usable": len(devices)} and "null0" in placed.text
    assert _told(kernel, "null0", "device.placed") == placed


def test_a_limit_of_a_device(kernel: Inside) -> None:
    program = kernel.program()
    for limit, holds in ((SIZE, SIZE), (0, MEMORY)):
        program.control(program.grants["null0"], "limit", bytes=limit)
        told = _told(kernel, "null0", "device.limit")
        assert told.numbers == {"bytes": holds} and kernel.kernel.ledger.free("null0") == holds
        assert ("no limit" in told.text) == (not limit)


def test_a_plan_that_was_too_small(kernel: Inside) -> None:
    program = kernel.program()
    model = program.load("fox")
    host = kernel.kernel.models.by_id[_id(kernel, "fox")].host_id
    overrun = Overrun(model=host, what="kv", predicted=100, measured=350)
    kernel.null.event(overrun)
    assert _told(kernel, "null0", "memory.overrun").numbers == {"predicted": 100, "measured": 350, "extra": 250}
    program.call("unload_model", model=model)
    reasons = program.call("load_model", path="/models/fox", options={"dry_run": True})["plan"]["reasons"]
    corrected = next(each for each in reasons if each["code"] == "plan.corrected")
    assert corrected["numbers"] == {"extra": overrun.measured - overrun.predicted}


def test_models_that_are_never_awake_together(kernel: Inside) -> None:
    program = kernel.program()
    program.load("fox", group="!one")
    held = kernel.kernel.ledger.held(kernel.kernel.models.by_id[_id(kernel, "fox")].host_id)
    program.load("owl", group="!one")
    assert _told(kernel, _id(kernel, "fox"), "model.evicted").numbers == {"frees": held}


def test_what_others_took(kernel: Inside) -> None:
    kernel.program().load("fox")
    used, ledger, fox = kernel.now, kernel.kernel.ledger, kernel.kernel.models.by_id[_id(kernel, "fox")]
    held = ledger.held(fox.host_id)
    ledger.set_foreign("null0", ledger.free("null0") + 1000)
    excess = ledger.excess("null0")
    for _ in range(LASTING + 1):
        kernel.advance(1.0)
        if not ledger.held(fox.host_id):
            break
    told = _told(kernel, fox.id, "memory.excess")
    assert (told.numbers["needed"], told.numbers["frees"]) == (excess, held) == (1000, SIZE)
    assert told.numbers["idle_s"] == (kernel.now - used) / 1e9


def test_room_that_running_requests_make_when_they_end(kernel: Inside) -> None:
    program, ledger = kernel.program(), kernel.kernel.ledger
    models = [program.load(name) for name in ("fox", "owl")]
    numbers = [program.start(model, "x") for model in [models[0], *models]]
    kernel.advance(30)
    free = ledger.free("null0")
    elk = program.send("load_model", path="/models/elk", options={})
    waits, running = _told(kernel, "null0", "memory.waits"), kernel.kernel.scheduler.running()
    assert len(running) == 3
    drained = {
        name: told.numbers
        for name in ("fox", "owl")
        for told in kernel.kernel.decisions.of(_id(kernel, name))
        if told.code == "model.draining"
    }
    ((name, numbers_of),) = drained.items()
    mine = len(kernel.kernel.scheduler.running(_id(kernel, name)))
    assert waits.numbers == {"running": mine} and numbers_of["running"] == mine
    held = ledger.held(kernel.kernel.models.by_id[_id(kernel, name)].host_id)
    assert (numbers_of["needed"], numbers_of["frees"]) == (SIZE - free, held)
    for number in numbers:
        kernel.null.release("submit")
        program.wait(number)
    assert program.wait(elk).error is None


def test_shares_of_a_device(kernel: Inside) -> None:
    program = kernel.program()
    numbers = [program.start(program.load(name), "x") for name in ("fox", "owl")]
    kernel.advance(0.1)
    (shares,) = [body["shares"] for name, body in kernel.null.calls if name == "set_shares"]
    told = _told(kernel, "null0", "device.shares").numbers
    busy, users = kernel.kernel.scheduler.busy(), {each.user for each in kernel.kernel.scheduler.running()}
    assert told == {"models": len(busy), "users": len(users), "of_unit": 1.0, **shares}
    for number in numbers:
        kernel.null.release("submit")
        program.wait(number)


def test_the_line_before_a_quota(folder: Path) -> None:
    settings = f'[policy.uid.{os.getuid()}]\nlimits = {{ concurrent_requests = 1 }}\nover_quota = "wait"\n'
    with inside(folder, settings, drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("fox")
        numbers = [program.start(model, "x") for _ in range(3)]
        owner = kernel.session(program).owner
        told = [each.numbers for each in kernel.kernel.decisions.of(owner) if each.code == "quota.waits"]
        assert [(each["ahead"], each["limit"], each["used"]) for each in told] == [(0, 1, 1), (1, 1, 1)]
        for number in numbers:
            kernel.null.release("submit")
            program.wait(number)


def test_restarts_of_a_driver() -> None:
    rules = RestartRules()
    policy, now = RestartPolicy(rules), 0
    for attempt in range(1, rules.restarts + 1):
        told = policy.exited(now, "killed")
        assert isinstance(told, Restart)
        delay = (told.at - now) / 1e9
        assert told.reason.code == "driver.restart"
        assert told.reason.numbers == {"delay_s": delay, "attempt": told.attempt, "recent": policy.restarts}
        assert told.attempt == attempt
        now = told.at
    end = policy.exited(now, "killed")
    assert isinstance(end, GiveUp) and end.reason.code == "driver.failed"
    assert end.reason.numbers == {"restarts": end.restarts, "period_s": rules.period_s}


def test_the_queue_as_the_scheduler_counts_it() -> None:
    """A queue of ten with one slot: what is told of a request that queues, is not taken, and is late."""
    scheduler = Scheduler(limit=10)
    scheduler.set_lane("m", 1)
    wait = [scheduler.submit(Ticket(f"r{n}", "m", "s", "1000", n, deadline_ns=9 * SECOND)) for n in range(2)][-1]
    queued = scheduler.queued_reason("r1", wait)
    assert queued is not None and queued.code == "request.queued"
    counts = {"waiting": 2, "running": 0, "slots": 1}
    assert queued.numbers == {**counts, "predicted_wait_s": wait / SECOND}
    (start,) = scheduler.next(2 * SECOND)
    assert isinstance(start, Start) and start.reason.numbers["waited_s"] == 2.0
    scheduler.finish("r0", 2 * SECOND)
    scheduler.submit(Ticket("late", "m", "s", "1000", 2 * SECOND, deadline_ns=3 * SECOND))
    (_, expired) = sorted(scheduler.next(5 * SECOND), key=lambda each: isinstance(each, Expire))
    assert isinstance(expired, Expire) and expired.reason.code == "request.expired"
    assert expired.reason.numbers["waited_s"] == 3.0
    for n in range(9):
        scheduler.submit(Ticket(f"t{n}", "m", "s", "1000", 5 * SECOND))
    with pytest.raises(Busy) as refused:
        scheduler.submit(Ticket("more", "m", "s", "1000", 5 * SECOND))
    told = refused.value.reasons[0]["numbers"]
    mine = len(scheduler.waiting("m"))
    assert told == {
        "waiting": mine, "running": len(scheduler.running("m")), "slots": 1, "limit": 10, "room": 10 - mine,
        "of_user": mine,
    }  # fmt: skip

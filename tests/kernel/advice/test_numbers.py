"""Every number that `why` prints, against what it was taken from: the ledger, the clock, the scheduler, the answer.

Those of an answer and of a driver's restarts are compared on a real kernel (userland/cli/commands/test_explaining);
those of alerts and advice in test_alarms and test_advising.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import Inside, Program, inside, loaded, rows

from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import NoDeviceMemory
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
    assert waits is not None
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

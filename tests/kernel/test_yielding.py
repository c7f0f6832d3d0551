"""What is said of requests that give way to a higher work class."""

from __future__ import annotations

import msgspec
import pytest
from scripted import Inside, Program, loaded

from llmos.kernel.scheduler import Start, Ticket
from llmos.kernel.yielding import tell_who_yields
from llmos.syscalls.types import Reason, WorkClass


def _told(kernel: Inside) -> dict[str, list[str]]:
    """To whom each running request gives way, of those of which something was said."""
    said = {}
    for ticket in kernel.kernel.scheduler.running():
        reasons = kernel.kernel.decisions.of(ticket.id)
        texts = [reason.text for reason in reasons if reason.code == "request.preempted"]
        if texts:
            said[ticket.id] = [text.split(" gives way to ")[1].split(",")[0] for text in texts]
    return said


@pytest.fixture
def parking(kernel: Inside, program: Program) -> int:
    """A model with three slots on a device that can park work."""
    assert kernel.null.driver.facts is not None
    kernel.null.driver.facts = msgspec.structs.replace(kernel.null.driver.facts, features={"parks": 1})
    kernel.null.answers["load"] = loaded(slots=3)
    return program.load("tiny")


def test_each_start_beyond_the_slots_is_told_to_the_one_that_stands_back(
    kernel: Inside, program: Program, parking: int
) -> None:
    for work_class, priority in (("batch", 0), ("background", 5), ("batch", -1)):
        kernel.now += 1
        program.start(parking, "b", call_work_class=work_class, call_priority=priority)
    first, background, low = [ticket.id for ticket in kernel.kernel.scheduler.running()]
    assert _told(kernel) == {}, "there are slots for all"
    highest = []
    for standing_back in (background, low, first):
        kernel.now += 1
        program.start(parking, "i")
        highest.append(kernel.kernel.scheduler.running()[-1].id)
        assert _told(kernel)[standing_back] == [highest[-1]]
    assert _told(kernel) == {background: [highest[0]], low: [highest[1]], first: [highest[2]]}


def test_of_equals_the_latest_stands_back(kernel: Inside, program: Program, parking: int) -> None:
    for _ in range(3):
        kernel.now += 1
        program.start(parking, "b", call_work_class="batch")
    last = kernel.kernel.scheduler.running()[-1].id
    program.start(parking, "i")
    assert list(_told(kernel)) == [last]


def test_who_was_lifted_over_all_ranks_makes_nobody_stand_back(kernel: Inside, program: Program, parking: int) -> None:
    """One of the lowest class that waited too long may start beyond the slots, and nobody runs that is lower."""
    for _ in range(3):
        program.start(parking, "i")
    lane = kernel.kernel.scheduler.running()[0].lane
    why = Reason(code="request.start", text="", numbers={"running": 4, "slots": 3})
    tell_who_yields(kernel.kernel, Start(Ticket("old", lane, "s", "1", 0, WorkClass.BATCH), why))
    assert _told(kernel) == {}


def test_those_of_a_lower_class_are_told_to_whom_they_give_way(kernel: Inside, program: Program) -> None:
    """Where the device can park work; the model has two slots."""
    assert kernel.null.driver.facts is not None
    kernel.null.driver.facts = msgspec.structs.replace(kernel.null.driver.facts, features={"parks": 1})
    model = program.load("tiny")
    numbers = [program.start(model, "b", call_work_class="batch"), program.start(model, "i")]
    scheduler, decisions = kernel.kernel.scheduler, kernel.kernel.decisions
    (batch, first) = [ticket.id for ticket in scheduler.running()]
    assert [reason.code for reason in decisions.of(batch)] == ["request.start"], "there is room for both"
    numbers.append(program.start(model, "i"))
    (last,) = {ticket.id for ticket in scheduler.running()} - {batch, first}
    preempted = decisions.of(batch)[-1]
    assert preempted.code == "request.preempted" and f"gives way to {last}, interactive" in preempted.text
    assert preempted.numbers == {"running": len(scheduler.running()), "slots": 2} and preempted.change
    assert [reason.code for reason in decisions.of(first)] == ["request.start"]
    for _ in numbers:
        kernel.null.release("submit")
    for number in numbers:
        assert program.wait(number).error is None

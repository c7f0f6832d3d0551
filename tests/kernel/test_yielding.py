"""What is said of requests that give way to a higher work class."""

from __future__ import annotations

import msgspec
from scripted import Inside, Program


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

"""Who gives way when a request of a higher work class starts although the slots of its model are full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.syscalls.types import Number, Reason

from .lane import CLASS_RANK
from .scheduler import Start

if TYPE_CHECKING:
    from .core import Kernel

RULE = "in each step a higher work class before a lower one; the lower one keeps its stated minimum"


def tell_who_yields(kernel: Kernel, start: Start) -> None:
    """Keep as a decision about each running request of a lower class that it may give way to the one that starts: its
    driver parks it where a step has no room for both, and it goes on by itself."""
    numbers = start.reason.numbers
    if not int(numbers.get("running", 0)) > int(numbers.get("slots", 0)):
        return
    ticket = start.ticket
    for other in kernel.scheduler.running(ticket.lane):
        if CLASS_RANK[other.work_class] > CLASS_RANK[ticket.work_class]:
            text = (
                f"{other.id}, {other.work_class}, gives way to {ticket.id}, {ticket.work_class}, where a step has no "
                f"room for both: {numbers['running']} run in {numbers['slots']} slots"
            )
            told: dict[str, Number] = {name: numbers[name] for name in ("running", "slots")}
            kernel.decisions.note((other.id,), Reason(code="request.preempted", text=text, numbers=told, rule=RULE))

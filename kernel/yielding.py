"""Who gives way when a request of a higher work class starts although the slots of its model are full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.syscalls.types import Number, Reason

from .lane import Ticket
from .scheduler import Start

if TYPE_CHECKING:
    from .core import Kernel

RULE = "in each step a higher work class before a lower one, the latest of the lowest stands back; it keeps its minimum"


def tell_who_yields(kernel: Kernel, start: Start) -> None:
    """Keep as a decision about the one running request that stands back for the one that starts: as many as run beyond
    the slots do, and with each such start it is one more. Its driver parks it where a step has no room for both, and it
    goes on by itself."""
    numbers, ticket = start.reason.numbers, start.ticket
    beyond = int(numbers.get("running", 0)) - int(numbers.get("slots", 0))
    if beyond <= 0:
        return
    lower = [other for other in kernel.scheduler.running(ticket.lane) if other.rank[0] > ticket.rank[0]]
    if beyond > len(lower):
        return
    other = sorted(lower, key=_urgency)[-beyond]
    text = (
        f"{other.id}, {other.work_class}, gives way to {ticket.id}, {ticket.work_class}, where a step has no "
        f"room for both: {numbers['running']} run in {numbers['slots']} slots"
    )
    told: dict[str, Number] = {name: numbers[name] for name in ("running", "slots")}
    kernel.decisions.note((other.id,), Reason(code="request.preempted", text=text, numbers=told, rule=RULE))


def _urgency(ticket: Ticket) -> tuple[tuple[int, int], int]:
    """As a device orders the rows of a step; what comes first stays."""
    return ticket.rank, ticket.arrived_ns

"""On which device a model is placed when none is named: accelerators before the CPU, null devices last. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmos.syscalls.errors import Unavailable
from llmos.syscalls.types import Number, Reason

RULE = "accelerators before the CPU"


@dataclass(frozen=True, slots=True)
class Seat:
    """A device that a session may load models on."""

    name: str
    state: str
    """Of its driver."""
    cause: str = ""
    """Why the driver is in that state, as far as it is known."""


def place(seats: Sequence[Seat]) -> tuple[str, Reason]:
    """The device, and why it is that one.

    Raises:
        Unavailable: all of them have failed or are stopped.
    """
    usable = [seat for seat in seats if seat.state not in ("failed", "stopped")]
    if not usable:
        states = ", ".join(f"{seat.name} is {seat.state}" for seat in seats)
        raise Unavailable(f"load_model: no device can take a model now: {states}", retry_after_ms=1000)
    chosen = min(usable, key=lambda seat: (rank(seat.name), seat.name))
    passed = [seat for seat in seats if seat not in usable and rank(seat.name) < rank(chosen.name)]
    numbers: dict[str, Number] = {"devices": len(seats), "usable": len(usable)}
    if not passed:
        which = f"the first of {len(usable)}" if len(usable) > 1 else "the only one"
        text = f"{chosen.name} was chosen, {which} that can take a model"
        return chosen.name, Reason(code="device.placed", text=text, numbers=numbers, rule=RULE)
    said = ", ".join(f"{seat.name} is {seat.state}" + (f" ({seat.cause})" if seat.cause else "") for seat in passed)
    first = passed[0]
    how = "llmos driver reset" if first.state == "failed" else "llmos driver start"
    fallback = Reason(
        code="device.fallback", text=f"{chosen.name} was chosen as a fallback: {said}", numbers=numbers, rule=RULE,
        change=f"make {first.name} work, then {how} {first.name} and load the model again",
    )  # fmt: skip
    return chosen.name, fallback


def rank(name: str) -> int:
    """How good a device is, from what its name begins with: the lower the better."""
    return 2 if name.startswith("null") else 1 if name.startswith("cpu") else 0

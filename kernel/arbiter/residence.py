"""Which models leave a device to make room: what a policy sees, what it answers, and what holds for every policy.

Pure: the kernel and the simulator ask the very same code. Times are monotonic nanoseconds. A policy only orders and
picks; that nothing pinned or busy is ever touched, that a group leaves as one, that nothing leaves in vain and nobody
leaves for whom there is room without, is done here for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model on the device, as a policy sees it."""

    model: str
    bytes: int
    """What the device gets back when it leaves."""
    reload_s: float = 0.0
    """What it costs to have it back: of a wake when it would sleep, of a load when it would leave memory."""
    rate: float = 0.0
    """Expected uses in a second, each counted by the priority of who asks."""
    used: int = 0
    """When it was used last."""
    keep_alive_s: float = -1
    """Idle seconds after which it may sleep, -1 never."""
    pinned: bool = False
    busy: bool = False
    group: str = ""
    """Members of a group leave together; `!NAME` and empty for a model on its own."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that leaves, and by which rule and numbers it was chosen."""

    candidate: Candidate
    rule: str
    numbers: dict[str, float]


class Policy(Protocol):
    """Who leaves first."""

    @property
    def name(self) -> str:
        """What the configuration calls it."""

    @property
    def rule(self) -> str:
        """The rule in words, for reasons."""

    def surplus(self, view: Sequence[Candidate]) -> int:
        """How many models more than the policy allows there would be with one more; 0 for policies of bytes."""

    def victims(self, view: Sequence[Candidate], needed: int, now: int) -> list[Candidate]:
        """Who leaves, in order, so that at least so many bytes come free; everybody in view may leave."""

    def numbers(self, candidate: Candidate, now: int) -> dict[str, float]:
        """What the choice rested on, for reasons."""


def choose(policy: Policy, view: Sequence[Candidate], needed: int, now: int) -> list[Choice]:
    """What leaves a device for `needed` bytes more, members of a group one after the other.

    Empty when there is room already, and when not even everything that may leave would be enough.
    """
    surplus = policy.surplus(view)
    units = [unit for unit in _units(view) if not unit[0].pinned and not unit[0].busy and unit[0].bytes > 0]
    if (needed <= 0 and not surplus) or sum(whole.bytes for whole, _ in units) < needed:
        return []
    members = {whole.model: parts for whole, parts in units}
    chosen = policy.victims([whole for whole, _ in units], needed, now)
    return [
        Choice(each, policy.rule, policy.numbers(each, now)) for whole in chosen for each in members[whole.model]
    ]


def together(group: str) -> bool:
    """Whether models of this group are awake together and leave together."""
    return bool(group) and not apart(group)


def apart(group: str) -> bool:
    """Whether models of this group, `!NAME`, are never awake together on a device."""
    return group.startswith("!")


def enough(ordered: Iterable[Candidate], needed: int, at_least: int = 0) -> list[Candidate]:
    """The first of them that free so many bytes together, and are so many."""
    taken: list[Candidate] = []
    freed = 0
    for each in ordered:
        if freed >= needed and len(taken) >= at_least:
            break
        taken.append(each)
        freed += each.bytes
    return taken


def _units(view: Sequence[Candidate]) -> list[tuple[Candidate, list[Candidate]]]:
    """Each group as one candidate, and each model that has none, with its members."""
    groups: dict[str, list[Candidate]] = {}
    for each in view:
        groups.setdefault(f"group {each.group}" if together(each.group) else f"model {each.model}", []).append(each)
    return [(_whole(members), members) for members in groups.values()]


def _whole(members: list[Candidate]) -> Candidate:
    first = members[0]
    if len(members) == 1:
        return first
    forever = any(each.keep_alive_s < 0 for each in members)
    return replace(
        first,
        bytes=sum(each.bytes for each in members),
        reload_s=sum(each.reload_s for each in members),
        rate=max(each.rate for each in members),
        used=max(each.used for each in members),
        keep_alive_s=-1 if forever else max(each.keep_alive_s for each in members),
        pinned=any(each.pinned for each in members),
        busy=any(each.busy for each in members),
    )

"""Which model of a device has the next step: pure, but for the work that it asks runners about.

First the class of work, then shares. A model is of the highest class that it has work of. Models of one class divide
the time by their shares, as in stride scheduling (Waldspurger, Weihl 1995): each has a clock that runs the slower the
larger its share is, and the one whose clock is behind goes next. A lower class is owed a part of the time
(`turns.Dues`), so that no model stands still.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from ..contract import StepEvent
from .models import Entry
from .runner import Runner
from .turns import Classes, rank

LEAST_S = 1e-9
"""What a step counts at least."""


class Sharing:
    """The runners of one device that have work."""

    def __init__(self) -> None:
        self._clocks: dict[Runner, float] = {}
        """Seconds that each took, divided by its share."""
        self._now = 0.0
        """The clock of the one that went last: one that comes back goes on from there, and catches up on nothing."""
        self._shares: Mapping[Runner, float] = {}
        self._budget: Mapping[str, float] = {}
        self._classes = Classes()
        self._ranks: dict[Runner, int] = {}
        """Of those that could have had the next step, when it was asked for."""

    def __iter__(self) -> Iterator[Runner]:
        return iter(list(self._clocks))

    def add(self, runner: Runner) -> None:
        """A runner has work."""
        if runner not in self._clocks:
            self._clocks[runner] = self._now
            runner.set_budget(self._budget)

    def remove(self, runner: Runner) -> None:
        """A runner has no more work."""
        self._clocks.pop(runner, None)

    def clear(self) -> None:
        """Nobody has work."""
        self._clocks.clear()
        self._shares = {}

    def set_shares(self, shares: Mapping[Runner, float]) -> None:
        """How runners divide the time; one that is not named has the mean of the others."""
        self._shares = {runner: share for runner, share in shares.items() if share > 0.0}

    def set_budget(self, budget: Mapping[str, float]) -> None:
        """What lower classes are owed, between runners and in each; see `contract.Device.set_budget`."""
        self._budget = budget
        self._classes.set(budget)
        for runner in self._clocks:
            runner.set_budget(budget)

    def next(self) -> Runner | None:
        """Who has the next step, however often it is asked."""
        if not self._clocks:
            return None
        self._ranks = {runner: min(map(rank, runner.requests()), default=0) for runner in self._clocks}
        chosen = self._classes.next(set(self._ranks.values()))
        mine = [runner for runner, its in self._ranks.items() if its == chosen]
        return min(mine, key=self._clocks.__getitem__)

    def step(self, runner: Runner) -> list[StepEvent]:
        """Let the runner that is `next` have its step; what happened."""
        started = time.perf_counter()
        events = runner.step()
        self.stepped(runner, time.perf_counter() - started)
        if not runner.busy:
            self.remove(runner)
        return events

    def stepped(self, runner: Runner, seconds: float) -> None:
        """The step of the runner that was `next` is over."""
        if runner in self._ranks:
            self._classes.spent(set(self._ranks.values()), self._ranks[runner], seconds)
        self._now = self._clocks[runner]
        mean = sum(self._shares.values()) / len(self._shares) if self._shares else 1.0
        self._clocks[runner] += max(seconds, LEAST_S) / self._shares.get(runner, mean)


def by_runner(entries: Mapping[str, Entry], shares: Mapping[str, float]) -> dict[Runner, float]:
    """Shares of models as those of what serves them; an adapter adds its own to those of its base. Unknown ones, and
    those that sleep, are left out."""
    found: dict[Runner, float] = {}
    for id, share in shares.items():
        entry = entries.get(id)
        resident = None if entry is None else entry.resident
        for runner in () if resident is None else resident.runners:
            found[runner] = found.get(runner, 0.0) + share
    return found

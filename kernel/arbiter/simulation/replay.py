"""Replays a trace over a policy, on a clock of its own.

What it takes of the world: a device of so many bytes, one load at a time, any number of requests side by side on a
model that is there. Room is promised when a request arrives, as the kernel's ledger promises it, so the models in
memory change in the order of arrivals; a request waits for its model's place among the loads and for the load. Only
when what runs holds too much do requests wait for room, first come first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil

from ..history import History, Key
from ..residence import SECOND, Candidate, Policy, choose
from .traces import Request, Trace


@dataclass(slots=True)
class Outcome:
    """What a policy made of a trace."""

    policy: str
    reload_s: float = 0.0
    loads: int = 0
    evictions: int = 0
    deferred_s: float = 0.0
    """The longest that a request waited for room."""
    waits: list[float] = field(default_factory=list)

    def wait(self, part: float) -> float:
        """The wait, in seconds, that this part of all requests did not exceed."""
        return percentile(self.waits, part)


@dataclass(slots=True)
class _Place:
    ready: float
    used: float
    busy: int = 0


def replay(trace: Trace, policy: Policy) -> Outcome:
    """Every request of the trace, in turn; the models are not in memory at the start."""
    return _Replay(trace, policy).run()


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that this part of all values does not exceed; 0 of none."""
    return sorted(values)[max(ceil(part * len(values)) - 1, 0)] if values else 0.0


class _Replay:
    def __init__(self, trace: Trace, policy: Policy) -> None:
        self._trace, self._policy = trace, policy
        self._history = History()
        self._keys = [Key(model.name, "", "") for model in trace.models]
        self._held: dict[int, _Place] = {}
        self._free = trace.capacity
        self._ends: list[tuple[float, int]] = []
        self._waiting: deque[Request] = deque()
        self._loader = 0.0
        """When the last load that was begun is done."""
        self._outcome = Outcome(policy.name)

    def run(self) -> Outcome:
        for request in self._trace.requests:
            self._until(request.at)
            self._history.asked(self._keys[request.model], int(request.at * SECOND))
            turn = request.model in self._held or not self._waiting
            if not turn or not self._start(request, request.at):
                self._waiting.append(request)
        while self._ends:
            self._until(self._ends[0][0])
        assert not self._waiting
        return self._outcome

    def _until(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            at, model = heappop(self._ends)
            self._held[model].busy -= 1
            while self._waiting and self._start(self._waiting[0], at):
                self._waiting.popleft()

    def _start(self, request: Request, now: float) -> bool:
        """Serve it if its model is there or room can be made for it."""
        if request.model not in self._held and not self._admit(request, now):
            return False
        self._serve(request, now)
        return True

    def _admit(self, request: Request, now: float) -> bool:
        """Make room and begin the load; False when what could leave is not enough."""
        model = self._trace.models[request.model]
        needed = model.bytes - self._free
        view = [self._candidate(index, place) for index, place in self._held.items()]
        leaving = choose(self._policy, view, needed, int(now * SECOND))
        if needed > sum(choice.candidate.bytes for choice in leaving):
            return False
        for choice in leaving:
            index = int(choice.candidate.model)
            del self._held[index]
            self._free += self._trace.models[index].bytes
        self._free -= model.bytes
        self._loader = max(self._loader, now) + model.load_s
        self._held[request.model] = _Place(self._loader, now)
        self._history.measured(self._keys[request.model], "wake", model.bytes, model.load_s)
        outcome = self._outcome
        outcome.loads += 1
        outcome.reload_s += model.load_s
        outcome.evictions += len(leaving)
        return True

    def _serve(self, request: Request, now: float) -> None:
        place = self._held[request.model]
        start = max(now, place.ready)
        place.used, place.busy = now, place.busy + 1
        self._outcome.deferred_s = max(self._outcome.deferred_s, now - request.at)
        self._outcome.waits.append(start - request.at)
        heappush(self._ends, (start + request.run_s, request.model))

    def _candidate(self, index: int, place: _Place) -> Candidate:
        model, key = self._trace.models[index], self._keys[index]
        return Candidate(
            model=str(index),
            bytes=model.bytes,
            reload_s=self._history.seconds(key, "wake", model.bytes),
            rate=self._history.rate(key),
            used=int(place.used * SECOND),
            keep_alive_s=model.keep_alive_s,
            busy=place.busy > 0,
        )

"""What the policies make of the traces, beside the bound, as numbers and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..policies import PolicyName, policy_named
from ..residence import Policy
from .clairvoyant import STEPS, Clairvoyant, Informed, bound
from .replay import Outcome, replay
from .traces import Trace, trace

BASELINES: tuple[PolicyName, ...] = ("lru", "count", "keep-alive")
OURS: PolicyName = "value"
NOTHING_S = 1e-6
"""Seconds that are no gap but the rounding of sums."""
COLUMNS = (("reload s", 10), ("of bound", 10), ("evictions", 11), ("p50 wait", 10), ("p99 wait", 10))


@dataclass(frozen=True, slots=True)
class Line:
    """A policy on a trace."""

    policy: str
    reload_s: float
    loads: int
    evictions: int
    wait_p50_s: float
    wait_p99_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """All policies on a trace, and the bound of seconds that loads take at least, whoever decides."""

    trace: str
    seed: int
    requests: int
    bound_s: float
    late_s: float
    lines: tuple[Line, ...]

    def reload_s(self, policy: str) -> float:
        """Seconds that loads took by a policy."""
        return next(line.reload_s for line in self.lines if line.policy == policy)

    @property
    def best_s(self) -> float:
        """Of the best of the baselines."""
        return min(self.reload_s(name) for name in BASELINES)

    @property
    def closed(self) -> float:
        """How much of the gap between the best baseline and the bound is closed; less than 0 where it is worse."""
        return closed([self])

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**asdict(self), "closed": self.closed}


def closed(results: Iterable[Result]) -> float:
    """The part of the gap that is closed on several traces together; 1 where there is no gap to close."""
    rows = list(results)
    gap = sum(row.best_s - row.bound_s for row in rows)
    return sum(row.best_s - row.reload_s(OURS) for row in rows) / gap if gap > NOTHING_S else 1.0


def measure(name: str, seed: int, length: int, steps: int = STEPS, **shape: Any) -> Result:
    """Replay the trace of this name and seed over all policies."""
    made = trace(name, seed, length, **shape)
    outcomes = [replay(made, policy) for policy in policies(made)]
    late_s = max(outcome.deferred_s for outcome in outcomes)
    lines = tuple(_line(outcome) for outcome in outcomes)
    return Result(name, seed, len(made.requests), bound(made, late_s, steps), late_s, lines)


def policies(made: Trace) -> list[Policy]:
    """All that are compared; the count of models is what the device holds of models of mean size."""
    mean = sum(model.bytes for model in made.models) / len(made.models)
    named = [policy_named(name, int(made.capacity / mean)) for name in (OURS, *BASELINES)]
    return [*named, Informed(made), Clairvoyant(made)]


def table(results: Sequence[Result]) -> str:
    """For people: of each trace the sums over its seeds, and the worst waits."""
    return "\n".join(
        line
        for name in dict.fromkeys(row.trace for row in results)
        for line in _block(name, [row for row in results if row.trace == name])
    )


def _block(name: str, rows: Sequence[Result]) -> Iterator[str]:
    least = sum(row.bound_s for row in rows)
    seeds = ", ".join(str(row.seed) for row in rows)
    yield f"{name}: {sum(row.requests for row in rows)} requests, seeds {seeds}"
    yield f"  {'policy':<12}" + "".join(f"{title:>{width}}" for title, width in COLUMNS)
    for place, first in enumerate(rows[0].lines):
        lines = [row.lines[place] for row in rows]
        spent = sum(line.reload_s for line in lines)
        evictions = sum(line.evictions for line in lines)
        p50, p99 = max(line.wait_p50_s for line in lines), max(line.wait_p99_s for line in lines)
        yield f"  {first.policy:<12}{spent:10.0f}{spent / least:10.2f}{evictions:11}{p50:10.1f}{p99:10.1f}"
    yield f"  {'bound':<12}{least:10.0f}{1:10.2f}"
    worst = min(row.closed for row in rows)
    yield f"  of the gap between the best baseline and the bound {closed(rows):.0%} is closed, at worst {worst:.0%}"


def _line(outcome: Outcome) -> Line:
    return Line(
        outcome.policy, outcome.reload_s, outcome.loads, outcome.evictions, outcome.wait(0.5), outcome.wait(0.99)
    )

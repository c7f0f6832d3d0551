"""The policies of residence by name: by value, and those of other systems, which it is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from .residence import SECOND, Candidate, Policy, enough
from .value import ByValue

PolicyName = Literal["value", "lru", "count", "keep-alive"]
NAMES: tuple[PolicyName, ...] = get_args(PolicyName)


@dataclass(frozen=True, slots=True)
class LeastRecentlyUsed:
    """Whoever was not used for longest leaves first, whatever it holds and costs."""

    name = "lru"
    rule = "least recently used first"

    def surplus(self, view: Sequence[Candidate]) -> int:
        return 0

    def victims(self, view: Sequence[Candidate], needed: int, now: int) -> list[Candidate]:
        return enough(sorted(view, key=_age), needed)

    def numbers(self, candidate: Candidate, now: int) -> dict[str, float]:
        return {"idle_s": (now - candidate.used) / SECOND}


@dataclass(frozen=True, slots=True)
class Count:
    """At most so many models at a time, the least recently used leaves; as routers with a limit of models do it."""

    limit: int
    name = "count"
    rule = "at most so many models, least recently used first"

    def surplus(self, view: Sequence[Candidate]) -> int:
        return max(len(view) + 1 - self.limit, 0) if self.limit else 0

    def victims(self, view: Sequence[Candidate], needed: int, now: int) -> list[Candidate]:
        return enough(sorted(view, key=_age), needed, self.surplus(view))

    def numbers(self, candidate: Candidate, now: int) -> dict[str, float]:
        return {"idle_s": (now - candidate.used) / SECOND, "limit": self.limit}


@dataclass(frozen=True, slots=True)
class KeepAliveOrder:
    """The shortest keep-alive leaves first, then by name; never-ending ones last.

    Source: Ollama (server/sched.go), which sorts what is idle by the duration of its session, then by its path.
    """

    name = "keep-alive"
    rule = "shortest keep_alive first, then by name"

    def surplus(self, view: Sequence[Candidate]) -> int:
        return 0

    def victims(self, view: Sequence[Candidate], needed: int, now: int) -> list[Candidate]:
        return enough(sorted(view, key=lambda each: (_lasting(each), each.model)), needed)

    def numbers(self, candidate: Candidate, now: int) -> dict[str, float]:
        return {"keep_alive_s": candidate.keep_alive_s, "idle_s": (now - candidate.used) / SECOND}


def policy_named(name: PolicyName, models: int = 0) -> Policy:
    """The policy of this name; `models` is the limit of `count`, 0 for none."""
    by_name: dict[PolicyName, Policy] = {
        "value": ByValue(),
        "lru": LeastRecentlyUsed(),
        "count": Count(models),
        "keep-alive": KeepAliveOrder(),
    }
    return by_name[name]


def _age(candidate: Candidate) -> tuple[int, str]:
    return candidate.used, candidate.model


def _lasting(candidate: Candidate) -> float:
    return inf if candidate.keep_alive_s < 0 else candidate.keep_alive_s

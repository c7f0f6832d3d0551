"""The scheduler under load: arrivals, service times and a clock of a simulation."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from slow_cases import slow_but

from llmos.kernel.scheduler import SECOND, Expire, Scheduler, Start, Ticket
from llmos.syscalls.errors import Busy
from llmos.syscalls.types import WorkClass

MS = SECOND // 1000


@dataclass
class Load:
    """Requests of one kind: who, how often, how long they run, and in how long they must be answered."""

    owner: str
    rate: float
    service_ms: Callable[[random.Random], float]
    deadline_s: float | None = None
    work_class: WorkClass = WorkClass.INTERACTIVE
    lane: str = "m"
    weights: tuple[int, int] = (100, 100)


@dataclass
class Seen:
    """What came of them, by owner."""

    good: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    ran_s: Counter[str] = field(default_factory=Counter)
    most: int = 0
    hints: list[int] = field(default_factory=list)


def arrivals(load: Load, rng: random.Random, seconds: float) -> Iterator[tuple[int, Load]]:
    at = 0.0
    while (at := at + rng.expovariate(load.rate)) < seconds:
        yield int(at * SECOND), load


def simulate(loads: list[Load], seconds: float, slots: int = 4, seed: int = 1, **settings: int) -> Seen:
    """Run them on lanes with so many slots each; every lane has a device's full speed for each slot."""
    rng, scheduler, seen = random.Random(seed), Scheduler(**settings), Seen()
    for lane in {load.lane for load in loads}:
        scheduler.set_lane(lane, slots, device="d")
    events: list[tuple[int, int, str, object]] = []
    for load in loads:
        events += [(at, number, "arrive", load) for number, (at, load) in enumerate(arrivals(load, rng, seconds))]
    heapq.heapify(events)
    number, owners = 0, {load.owner: load for load in loads}
    while events:
        now, _, what, thing = heapq.heappop(events)
        if what == "arrive":
            assert isinstance(thing, Load)
            number += 1
            due = None if thing.deadline_s is None else now + int(thing.deadline_s * SECOND)
            ticket = Ticket(
                f"r{number}", thing.lane, "s", thing.owner, now, thing.work_class, 0, due, thing.weights
            )
            try:
                scheduler.submit(ticket)
            except Busy as busy:
                seen.refused[thing.owner] += 1
                seen.hints.append(busy.retry_after_ms)
                assert busy.reasons and busy.reasons[0]["numbers"]
        elif what == "end":
            assert isinstance(thing, Ticket)
            if scheduler.finish(thing.id, now) is not None:
                in_time = thing.deadline_ns is None or now <= thing.deadline_ns
                (seen.good if in_time else seen.late)[thing.owner] += 1
        seen.most = max(seen.most, len(scheduler._waiting))
        for decision in scheduler.next(now):
            one = decision.ticket
            if isinstance(decision, Start):
                took = int(owners[one.owner].service_ms(rng) * MS)
                if now <= seconds * SECOND:
                    seen.ran_s[one.owner] += took / SECOND
                scheduler.spent(one.id, took)
                number += 1
                heapq.heappush(events, (now + took, number, "end", one))
            elif isinstance(decision, Expire) and not decision.running:
                seen.late[one.owner] += 1
    return seen


def steady(ms: float) -> Callable[[random.Random], float]:
    return lambda _rng: ms


def spread(ms: float) -> Callable[[random.Random], float]:
    """Between a fifth and nearly twice the mean."""
    return lambda rng: ms * rng.uniform(0.2, 1.8)


@pytest.mark.parametrize("service", [steady(200), spread(200)], ids=["steady", "spread"])
@pytest.mark.parametrize("seed", [1, 2])
def test_goodput_at_four_times_the_load_stays_near_the_peak(
    service: Callable[[random.Random], float], seed: int
) -> None:
    """Capacity is 20 requests a second; answers after their deadline are worth nothing."""
    good = {
        rate: sum(simulate([Load("1", rate, service, deadline_s=2)], 60, seed=seed).good.values()) / 60
        for rate in (10, 16, 20, 24, 40, 80)
    }
    peak = max(good.values())
    assert peak > 18 and good[80] >= 0.9 * peak, good


def test_without_refusing_early_goodput_collapses() -> None:
    """What the test above would see if nothing were refused: the queue makes everybody late."""
    seen = simulate([Load("1", 80, steady(200))], 60, limit=0)
    assert seen.most > 2000 and not seen.refused


def test_policy_bounds_how_long_anybody_waits() -> None:
    seen = simulate([Load("1", 80, steady(200))], 60, queue_ns=1 * SECOND)
    assert seen.refused["1"] > 2000 and seen.most <= 40
    assert all(100 <= hint <= 60_000 for hint in seen.hints)


def test_a_flood_does_not_make_others_wait_or_be_refused() -> None:
    loads = [Load("flood", 200, steady(200)), Load("quiet", 2, steady(200), deadline_s=2)]
    seen = simulate(loads, 60, limit=200, queue_ns=5 * SECOND)
    assert seen.refused["flood"] > 5000 and seen.refused["quiet"] == 0
    assert seen.good["quiet"] > 90 and seen.late["quiet"] == 0


@pytest.mark.parametrize("seed", slow_but([1], [1, 2, 3]))
def test_two_greedy_owners_share_the_device_by_time(seed: int) -> None:
    """One asks for long requests of two models, the other for short ones of one: Jain's index over a minute."""
    loads = [Load("1", 20, spread(400), lane=lane) for lane in "mn"]
    loads += [Load("2", 100, spread(50), lane=lane) for lane in "mn"]
    seen = simulate(loads, 60, seed=seed, limit=0, aging_ns=10**15)
    one, two = seen.ran_s["1"], seen.ran_s["2"]
    assert (one + two) ** 2 / (2 * (one * one + two * two)) >= 0.97, seen.ran_s


def test_weights_divide_the_device() -> None:
    loads = [Load("1", 60, spread(100), weights=(300, 100)), Load("2", 60, spread(100))]
    seen = simulate(loads, 60, limit=0, aging_ns=10**15)
    assert seen.ran_s["1"] / seen.ran_s["2"] == pytest.approx(3, rel=0.05)


def test_batch_work_waits_for_interactive_but_not_for_ever() -> None:
    """Interactive work alone would fill the slots; one start in four goes to what waited longer than the aging time."""
    loads = [Load("1", 30, steady(200)), Load("2", 2, steady(200), work_class=WorkClass.BATCH)]
    seen = simulate(loads, 60, limit=0, aging_ns=2 * SECOND)
    assert seen.good["2"] > 60

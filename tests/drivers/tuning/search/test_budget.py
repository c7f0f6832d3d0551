"""What counts as computing, and what is left."""

from __future__ import annotations

import pytest

from llmos.drivers.tuning.search.budget import Budget
from llmos.drivers.tuning.search.space import Search


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def search(**budget: float) -> Search:
    wanted = {"space": {"rank": [2, 4]}, "trials": 3, **budget}
    return Search.of({"method": "lora", "eval_fraction": 0.1, "search": wanted})


def test_waiting_is_no_computing_and_counts_as_time() -> None:
    clock = Clock()
    budget = Budget(search(device_seconds=10, seconds=100), {"device": 4.0, "wall": 10.0}, clock)
    assert budget.share == 0.4

    def others() -> None:
        clock.now += 50

    clock.now += 2
    budget.waiting(others)()
    assert budget.computed() == 2 and budget.spent() == {"device": 6.0, "wall": 62.0}
    assert budget.share == pytest.approx(0.62)
    clock.now += 4
    assert budget.share == 1.0


def test_trials_alone_are_no_bound_of_time() -> None:
    clock = Clock()
    budget = Budget(search(), {}, clock)
    clock.now += 1e9
    assert budget.share == 0.0

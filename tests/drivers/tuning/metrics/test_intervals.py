"""Intervals hold what they say, and are the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from llmos.drivers.tuning.metrics.intervals import bootstrap


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(3)) + 5
    found = bootstrap(values, samples=2000)
    error = float(values.std()) / 20
    assert found.value == pytest.approx(float(values.mean()), abs=1e-6) and found.share == 0.95
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)


def test_a_seed_settles_it() -> None:
    values = torch.rand(30, generator=torch.Generator().manual_seed(1))
    first, again, other = (bootstrap(values, samples=50, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_most_intervals_hold_the_truth() -> None:
    """Of 100 data sets from a population, 95 or nearly so (the percentile interval is a little narrow)."""
    generator = torch.Generator().manual_seed(0)
    found = [bootstrap(torch.randn(60, generator=generator), samples=300, seed=n) for n in range(100)]
    assert 87 <= sum(each.low <= 0 <= each.high for each in found) <= 99


def test_items_of_a_row_are_drawn_together() -> None:
    """Ten copies of a value are no more evidence than one: drawn apart they would seem so."""
    values = torch.randn(40, generator=torch.Generator().manual_seed(2))
    alone = bootstrap(values)
    copied = bootstrap(values.repeat_interleave(10), rows=torch.arange(40).repeat_interleave(10))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.05)
    apart = bootstrap(values.repeat_interleave(10))
    assert apart.high - apart.low < 0.5 * (copied.high - copied.low)


def test_rows_keep_their_items_in_order_wherever_they_stand() -> None:
    rows, values = torch.tensor([7, 3, 7, 3, 3]), torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    seen: list[list[float]] = []

    def note(drawn: torch.Tensor) -> float:
        seen.append(drawn.tolist())
        return 0.0

    long = torch.arange(3000.0)
    bootstrap(long, statistic=note, rows=(long % 2).long(), samples=1)
    assert all(drawn[:1500] == sorted(drawn[:1500]) and drawn[1500:] == sorted(drawn[1500:]) for drawn in seen[:1])
    seen.clear()
    bootstrap(values, statistic=note, rows=rows, samples=20)
    parts = {(1.0, 3.0, 4.0), (0.0, 2.0)}
    for drawn in seen[:-1]:
        assert any(tuple(drawn) == (*one, *other) for one in parts for other in parts)


def test_several_values_are_drawn_alike() -> None:
    values = torch.arange(9.0)
    assert bootstrap(values, -values, statistic=lambda one, other: float((one + other).abs().sum())).high == 0


@pytest.mark.parametrize("values", [[torch.empty(0)], [torch.ones(2), torch.ones(3)]])
def test_nothing_to_draw_from_is_refused(values: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="the values have"):
        bootstrap(*values)

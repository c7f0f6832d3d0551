"""The formulas of merging, against the same written out number by number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.transform import merging

seeds = st.integers(0, 1000)
shares = st.floats(0.05, 1)


def drawn(seed: int, count: int = 3, size: int = 12) -> list[torch.Tensor]:
    return [*torch.randn(count, size, generator=torch.Generator().manual_seed(seed))]


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Tensors of a test have several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "BLOCK", 5)
        yield


def slerp(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    return merging.linear([a, b], merging.slerp_weights(a, b, share))


def ties(base: torch.Tensor, others: list[torch.Tensor], weights: list[float], density: float, scale: float) -> Any:
    least = [merging.least_kept(base, other, density) for other in others]
    return merging.ties(base, others, weights, least, scale)


def dare(base: torch.Tensor, other: torch.Tensor, weight: float, density: float, seed: int) -> torch.Tensor:
    return merging.dare(base, [other], [weight], density, [torch.Generator().manual_seed(seed)])


@given(seeds, st.floats(0, 1))
def test_slerp_keeps_the_angle_in_proportion(seed: int, share: float) -> None:
    a, b = drawn(seed, 2)
    a, b = a / a.norm(), b / b.norm()
    between = slerp(a, b, share)
    whole = math.acos(float(a @ b))
    assert math.isclose(float(between.norm()), 1, abs_tol=1e-4)
    assert math.isclose(math.acos(max(-1.0, min(1.0, float(a @ between)))), share * whole, abs_tol=2e-3)


def test_slerp_of_what_has_no_angle_is_a_line() -> None:
    a = torch.tensor([1.0, 2.0])
    assert torch.allclose(slerp(a, 3 * a, 0.5), 2 * a)
    assert torch.allclose(slerp(torch.zeros(2), a, 0.25), a / 4)


@given(seeds, st.floats(0, 1), st.booleans())
def test_the_least_that_is_kept_is_found_by_counting(seed: int, density: float, coarse: bool) -> None:
    base, other = drawn(seed, 2, 30)
    if coarse:
        base, other = base.round(), other.round()
    sizes = sorted((other - base).abs().tolist(), reverse=True)
    keep = round(density * len(sizes))
    assert merging.least_kept(base, other, density) == (sizes[keep - 1] if keep else math.inf)


@given(seeds, shares, st.floats(0.1, 2))
def test_ties_is_trim_elect_and_mean(seed: int, density: float, scale: float) -> None:
    base, *others = drawn(seed)
    weights = [0.25, 0.75]
    found = ties(base, others, weights, density, scale)
    deltas = [[float(x) for x in other - base] for other in others]
    keep = round(density * len(base))
    for delta in deltas:
        far = sorted(range(len(delta)), key=lambda i: -abs(delta[i]))
        for i in far[keep:]:
            delta[i] = 0.0
    for i, start in enumerate(base.tolist()):
        total = sum(w * d[i] for w, d in zip(weights, deltas, strict=True))
        same = [(w, d[i]) for w, d in zip(weights, deltas, strict=True) if d[i] * total > 0]
        mean = sum(w * x for w, x in same) / sum(w for w, _ in same) if same else 0.0
        assert math.isclose(float(found[i]), start + scale * mean, rel_tol=1e-4, abs_tol=1e-5)


def test_ties_of_values_of_one_size_keeps_them_all() -> None:
    found = ties(torch.zeros(4), [torch.tensor([1.0, -1.0, 1.0, 0.5])], [1.0], 0.25, 1.0)
    assert found.tolist() == [1.0, -1.0, 1.0, 0.0]


def test_ties_that_keeps_less_than_one_value_is_the_base() -> None:
    assert ties(torch.ones(4), [torch.zeros(4)], [1.0], 0.1, 1.0).tolist() == [1.0] * 4


def test_dare_drops_at_random_and_makes_up_for_it() -> None:
    base, other = torch.full((20_000,), 2.0), torch.full((20_000,), 3.0)
    found = dare(base, other, 0.5, 0.25, 1)
    assert set(found.tolist()) == {2.0, 4.0}  # 2 + 0.5 * 1 / 0.25
    assert float((found == 4).float().mean()) == pytest.approx(0.25, abs=0.015)
    assert torch.equal(found, dare(base, other, 0.5, 0.25, 1))
    assert not torch.equal(found, dare(base, other, 0.5, 0.25, 2))


def test_each_tensor_of_each_model_is_drawn_by_itself() -> None:
    found = {merging.seed_of(seed, name, model) for seed in (0, 1) for name in "ab" for model in (0, 1)}
    assert len(found) == 8


def test_low_rank_is_added_either_way_around() -> None:
    base, a, b = torch.zeros(3, 2), torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [0.0], [-1.0]])
    assert merging.low_rank(base, a, b, 2.0, False).tolist() == [[2.0, 4.0], [0.0, 0.0], [-2.0, -4.0]]
    assert merging.low_rank(base.T, a, b, 2.0, True).tolist() == [[2.0, 0.0, -2.0], [4.0, 0.0, -4.0]]
    assert base.count_nonzero() == 0

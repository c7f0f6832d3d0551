"""Distributions against the reference ops, and draws against torch.multinomial."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from chi_square import follows
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.sampling.distribution import (
    BLOCK,
    _passing,
    best,
    invert,
    nucleus,
    peaks,
    scores_of,
    to_weights,
)
from llmos.drivers.engine.sampling.philox import uniform
from llmos.drivers.ops.reference import filter_logits

SIZES = (1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK, 5 * BLOCK + 3)


def random(size: int, seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
def test_peaks_are_those_of_argmax_and_ties_go_to_the_lowest(dtype: torch.dtype, size: int) -> None:
    logits = random(size, size, rows=40).to(dtype).round()
    value, index = peaks(logits)
    assert torch.equal(value, logits.amax(dim=-1))
    lowest = [int((row == row.max()).nonzero()[0]) for row in logits]
    assert index.tolist() == lowest == logits.argmax(dim=-1).tolist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_peaks_show_what_is_not_finite(size: int, bad: float) -> None:
    for at in {0, size // 2, size - 1}:
        logits = random(size, 1)
        logits[0, at] = bad
        assert not math.isfinite(peaks(logits)[0].item())


def weights_of(logits: torch.Tensor, **params: Any) -> torch.Tensor:
    scores = scores_of(logits, range(logits.shape[0]))
    return to_weights(scores, peaks(scores)[0], [SamplingParams(**params)] * logits.shape[0])[:, : logits.shape[-1]]


@given(
    st.sampled_from(SIZES), st.integers(0, 2**31), st.floats(0.05, 5.0),
    st.one_of(st.just(0), st.integers(1, 50), st.integers(1, 3 * BLOCK)),
    st.one_of(st.just(1.0), st.floats(0.01, 0.99)), st.one_of(st.just(0.0), st.floats(0.001, 1.0)),
)  # fmt: skip
def test_weights_equal_the_reference(
    size: int, seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = random(size, seed)
    weights = weights_of(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)[0]
    scaled = ((logits[0] - logits[0].max()) / temperature).double()
    expected = torch.softmax(filter_logits(scaled, top_k, top_p, min_p), dim=-1)
    made = weights.double() / weights.double().sum()
    if top_p < 1.0 or min_p > 0.0:  # a token at the very edge may go either way
        edge = (expected > 0) != (made > 0)
        assert int(edge.sum()) <= 1
        return
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-4)


def test_top_p_looks_further_when_the_first_tokens_do_not_reach_it() -> None:
    flat = torch.linspace(0.0, 1e-3, 4000).unsqueeze(0)
    assert abs(int((weights_of(flat, temperature=1.0, top_p=0.5) > 0).sum()) - 2000) <= 2


@given(st.integers(0, 2**31), st.integers(1, 150), st.sampled_from([40 * BLOCK, 300 * BLOCK, 7 * BLOCK + 1]))
def test_the_best_are_those_of_topk(seed: int, count: int, size: int) -> None:
    scores = random(size, seed)[0].mul(20).round()
    values, tokens = best(scores, count)
    assert torch.equal(values, torch.topk(scores, count).values)
    assert torch.equal(scores[tokens], values) and len(set(tokens.tolist())) == count


@given(st.integers(0, 2**31), st.floats(0.001, 0.9999), st.floats(0.0, 3.0), st.sampled_from([3, BLOCK, 20 * BLOCK]))
def test_a_nucleus_is_the_smallest_set_that_reaches_its_share(seed: int, top_p: float, heat: float, size: int) -> None:
    probabilities = torch.softmax(random(size, seed)[0] * heat, dim=-1)
    above = nucleus(probabilities, top_p)
    kept, ranked = probabilities[probabilities > above].double(), probabilities.sort(descending=True).values.double()
    assert float(kept.sum()) >= top_p - 1e-6
    assert float(kept.sum() - kept.min()) < top_p + 1e-6 or bool((kept == kept.min()).sum() > 1)
    assert torch.equal(kept.sort(descending=True).values, ranked[: len(kept)])


def test_equal_scores_stay_or_go_together() -> None:
    logits = torch.tensor([[3.0, 1.0, 3.0, 3.0, 0.0]])
    assert (weights_of(logits, temperature=1.0, top_k=2) > 0).tolist() == [[True, False, True, True, False]]


def test_min_p_of_one_keeps_the_best_ones() -> None:
    logits = torch.tensor([[3.0, 1.0, 3.0, 2.999]])
    assert (weights_of(logits, temperature=1.0, min_p=1.0) > 0).tolist() == [[True, False, True, False]]


def test_the_order_is_top_k_then_top_p_then_min_p() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    kept = weights_of(logits, temperature=1.0, top_k=2, top_p=0.55) > 0
    assert kept.tolist() == [[True, False, False, False]]  # 0.4 / 0.7 is over 0.55; of the whole it is not
    assert (weights_of(logits, temperature=1.0, top_p=0.75, min_p=0.6) > 0).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-38, 1e-3])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    assert (weights_of(torch.tensor([[1e4, 1e4 - 1, -1e4]]), temperature=temperature) > 0).tolist() == [
        [True, False, False]
    ]


@pytest.mark.parametrize("size", [11, BLOCK + 5])
def test_draws_follow_the_weights_as_those_of_multinomial_do(size: int) -> None:
    logits = random(size, 3)
    probabilities = torch.softmax(logits[0].double(), dim=-1)
    weights = to_weights(scores_of(logits, [0]), logits.max(-1).values, [SamplingParams(temperature=1.0)])
    count = 20_000
    mine = invert(weights.expand(count, -1), [uniform(5, 0, at) for at in range(count)]).tolist()
    theirs = torch.multinomial(probabilities, count, True, generator=torch.Generator().manual_seed(0)).tolist()
    expected = dict(enumerate(probabilities.tolist()))
    assert follows(mine, expected) and follows(theirs, expected)
    assert not follows(mine, dict(enumerate(torch.softmax(logits[0].double() * 1.05, dim=-1).tolist())))


@given(
    st.lists(st.sampled_from([0.0, 0.0, 1e-30, 1e-7, 0.3, 1.0]), min_size=1, max_size=2 * BLOCK).filter(any),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_a_token_without_weight_is_never_drawn(values: list[float], number: float) -> None:
    weights = torch.zeros(1, 2 * BLOCK)
    weights[0, : len(values)] = torch.tensor(values)
    for each in (number, 0.0, 1.0 - 2.0**-53):
        token = int(invert(weights, [each]))
        assert weights[0, token] > 0
    cumulated = weights[0].double().cumsum(0)
    token = int(invert(weights, [number]))
    target = number * float(cumulated[-1])
    assert float(cumulated[token]) >= target * (1 - 1e-12)
    assert float(cumulated[token] - weights[0, token].double()) <= target * (1 + 1e-12)


def test_where_rounding_stands_in_the_way_it_is_the_last_token_with_weight() -> None:
    weights = torch.tensor([[0.0, 0.25, 0.5, 0.0], [0.5, 0.25, 0.0, 0.0]], dtype=torch.float64)
    index, before = _passing(weights, torch.tensor([0.75, 0.25], dtype=torch.float64))
    assert index.tolist() == [2, 0] and before.tolist() == [0.25, 0.0]


@pytest.mark.parametrize("size", [7, 4 * BLOCK, 4 * BLOCK + 3])
def test_a_step_in_the_middle_of_a_prompt_has_no_rows_and_no_peaks(size: int) -> None:
    values, indexes = peaks(torch.empty(0, size))
    assert values.shape == indexes.shape == (0,)

"""Sampling on the device: what is cut is what `filter_logits` cuts, and what is drawn is what it should be."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.sampling.chooser import Chooser
from llmos.drivers.engine.sampling.distribution import peaks, scores_of, to_weights
from llmos.drivers.ops.philox import philox
from llmos.drivers.ops.reference import filter_logits
from llmos.drivers.ops.reference_sampling import STREAM, floors, gumbel, sample

SETTINGS = [
    (1.0, 0, 1.0, 0.0), (0.7, 5, 1.0, 0.0), (1.3, 0, 0.8, 0.0), (1.0, 0, 1.0, 0.2), (1.5, 9, 0.9, 0.05),
]  # fmt: skip


def rows_of(
    count: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, seed: int = 0
) -> tuple[Tensor, ...]:
    """The settings of `count` rows, the n-th at position n."""
    return (
        torch.full((count,), temperature), torch.full((count,), top_k, dtype=torch.int32), torch.full((count,), top_p),
        torch.full((count,), min_p), torch.full((count,), seed), torch.arange(count),
    )  # fmt: skip


def chi_squared(tokens: Tensor, probabilities: Tensor) -> float:
    """How many standard deviations the statistic is above its mean."""
    possible = probabilities > 0
    counts = torch.bincount(tokens, minlength=probabilities.shape[-1]).double()
    assert not counts[~possible].any()
    due = probabilities[possible] * len(tokens)
    freedom = max(int(possible.sum()) - 1, 1)
    return float(((counts[possible] - due).pow(2) / due).sum() - freedom) / math.sqrt(2 * freedom)


@given(
    st.lists(st.sampled_from([-9.0, -2.5, -1.0, 0.0, 0.25, 1.0, 3.0]), min_size=1, max_size=24),
    st.integers(0, 30), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.sampled_from([0.3, 1.0, 2.0]),
)  # fmt: skip
@example([0.0, 0.0, 0.25], 2, 0.625, 0.0, 0.3)  # what is level at the end of top-k stays for top-p
def test_filters_are_those_of_one_row(
    logits: list[float], top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    row = torch.tensor(logits)
    scores = (row - row.max()) / temperature
    wanted = filter_logits(scores, top_k, top_p, min_p).isfinite()

    def kept(off: float) -> Tensor:
        settings = rows_of(1, 1.0, top_k, min(1.0, top_p * (1 + off)), min_p * (1 - off))[1:4]
        return scores >= floors(scores[None], *settings)

    least, most, found = kept(-1e-5), kept(1e-5), kept(0.0)  # float32 and float64 sums may fall on either side
    assert not (least & ~wanted).any() and not (wanted & ~most).any()
    assert not (least & ~found).any() and not (found & ~most).any()


def test_without_temperature_the_lowest_of_the_greatest_is_taken() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, -torch.inf], [5.0, 1.0, 5.0, 5.0]])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert sample(logits.to(dtype), *rows_of(2, 0.0, 1, 0.1)).tolist() == [1, 0]


def test_the_coolest_temperature_is_almost_greedy_and_overflows_nowhere() -> None:
    logits = torch.tensor([[3e38, -3e38, 2.9e38, 0.0]])
    assert sample(logits, *rows_of(1, 1e-45)).tolist() == [0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_gets_no_token_and_concerns_no_other(bad: float) -> None:
    logits = torch.zeros(4, 9)
    logits[1, 4], logits[2] = bad, -math.inf
    for temperature in (0.0, 1.0):
        tokens = sample(logits, *rows_of(4, temperature, 3, 0.9)).tolist()
        assert tokens[1:3] == [-1, -1] and min(tokens[0], tokens[3]) >= 0


@pytest.mark.parametrize("settings", SETTINGS)
def test_tokens_come_as_often_as_softmax_says(settings: tuple[float, int, float, float]) -> None:
    draws, size = 20_000, 30
    temperature, top_k, top_p, min_p = settings
    row = torch.randn(size, generator=torch.Generator().manual_seed(1)) * 2
    tokens = sample(row.expand(draws, size), *rows_of(draws, *settings, seed=5))
    probabilities = torch.softmax(filter_logits(row.double() / temperature, top_k, top_p, min_p), dim=-1)
    assert chi_squared(tokens, probabilities) < 5


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_distribution_is_that_of_the_sampling_on_the_host(settings: tuple[float, int, float, float]) -> None:
    draws, size = 20_000, 30
    temperature, top_k, top_p, min_p = settings
    row = torch.randn(size, generator=torch.Generator().manual_seed(2)) * 2
    params = SamplingParams(max_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    scores = scores_of(row[None], [0])
    weights = to_weights(scores, peaks(scores)[0], [params])[0, :size].double()
    tokens = sample(row.expand(draws, size), *rows_of(draws, *settings, seed=9))
    assert chi_squared(tokens, weights / weights.sum()) < 5


def test_a_row_depends_on_its_own_settings_alone() -> None:
    logits = torch.randn(6, 50)
    settings = (
        torch.tensor([0.0, 0.5, 1.0, 2.0, 1.0, 0.0]), torch.tensor([0, 3, 0, 7, 0, 0], dtype=torch.int32),
        torch.tensor([1.0, 1.0, 0.6, 0.9, 1.0, 1.0]), torch.tensor([0.0, 0.0, 0.0, 0.1, 0.3, 0.0]),
        torch.tensor([1, -2, 2**62, 4, 5, 6]), torch.tensor([0, 1, 2, 3, 2**32, 2**32 + 1]),
    )  # fmt: skip
    together = sample(logits, *settings)
    for row in range(6):
        alone = sample(logits[row : row + 1], *(each[row : row + 1] for each in settings))
        assert alone.tolist() == together[row : row + 1].tolist()


def test_seed_position_answer_and_token_each_change_the_noise() -> None:
    seeds = torch.tensor([1, 1, 1, 2, 1 + 2**32, -1])
    counters = torch.tensor([0, 1, 2**32, 0, 0, 0])
    noise = gumbel(seeds, counters, 10)
    assert len(set(noise.flatten().tolist())) == noise.numel()
    assert torch.equal(gumbel(seeds, counters, 7), noise[:, :7])


def test_the_noise_is_the_words_of_the_token_put_through_two_logarithms() -> None:
    seed, position, answer, token = 2**40 + 3, 17, 5, 11
    word = philox((position, answer, STREAM, token // 4), (seed & 2**32 - 1, seed >> 32))[token % 4]
    wanted = -math.log(-math.log1p(-(word + 0.5) / 2**32))
    found = float(gumbel(torch.tensor([seed]), torch.tensor([answer << 32 | position]), 16)[0, token])
    assert math.isclose(found, wanted, rel_tol=1e-5)


def test_noise_is_finite_and_has_the_moments_of_gumbel() -> None:
    noise = gumbel(torch.arange(50), torch.arange(50), 4000).double()
    assert float(noise.min()) > -2.9 and float(noise.max()) < 22.9
    assert abs(float(noise.mean()) - 0.5772156649) < 5 * math.pi / math.sqrt(6 * noise.numel())
    assert abs(float(noise.var()) - math.pi**2 / 6) < 0.03


def test_the_host_draws_from_other_streams() -> None:
    params = SamplingParams(max_tokens=1, temperature=1.0)
    drawn = Chooser(params, [], 3).uniform()
    high, low, _, _ = philox((0, 0, STREAM, 0), (3, 0))
    assert drawn != ((high >> 5) * (1 << 26) + (low >> 6)) * 2.0**-53

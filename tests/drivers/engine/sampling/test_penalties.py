"""Penalties against the reference op, which goes through the whole vocabulary."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.sampling.penalties import Penalties
from llmos.drivers.ops.reference import penalize_logits

SIZE = 100
tokens = st.lists(st.integers(0, SIZE + 3), max_size=150)


@given(tokens, tokens, st.floats(0.5, 2.0), st.floats(-2.0, 2.0), st.floats(-2.0, 2.0), st.integers(0, 2**31))
def test_they_equal_the_reference(
    prompt: list[int], answer: list[int], repetition: float, presence: float, frequency: float, seed: int
) -> None:
    params = SamplingParams(repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency)
    penalties = Penalties(params, prompt)
    seen, counts = torch.zeros(SIZE, dtype=torch.bool), torch.zeros(SIZE)
    for token in prompt:
        if token < SIZE:
            seen[token] = True
    for token in answer:
        penalties.count(token)
        if token < SIZE:
            seen[token] = True
            counts[token] += 1
    scores = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) * 5
    expected = penalize_logits(scores.clone(), seen, counts, repetition, presence, frequency)
    penalties.apply(scores)
    torch.testing.assert_close(scores, expected)


def test_excluded_tokens_stay_excluded() -> None:
    penalties = Penalties(SamplingParams(repetition_penalty=0.5, presence_penalty=-2.0), [0, 1])
    penalties.count(0)
    scores = torch.tensor([-torch.inf, -torch.inf, 1.0])
    penalties.apply(scores)
    assert scores.tolist() == [-torch.inf, -torch.inf, 1.0]


def test_they_are_kept_only_when_wanted() -> None:
    assert not Penalties.wanted(SamplingParams(temperature=1.0, logit_bias={1: 2.0}))
    for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert Penalties.wanted(SamplingParams(**{name: 0.5}))

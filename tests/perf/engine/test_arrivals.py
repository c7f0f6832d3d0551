"""Requests are the same for the same seed, and as mixed as they claim to be."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise

import pytest
from engine.arrivals import arrivals, log_uniform, prompts, texts
from hypothesis import given
from hypothesis import strategies as st

MANY = arrivals(3, 2000, 50.0, (16, 512), (8, 256), 1000)


def test_the_same_seed_makes_the_same_requests() -> None:
    assert arrivals(3, 20, 50.0, (16, 512), (8, 256), 1000) == MANY[:20]
    assert arrivals(4, 20, 50.0, (16, 512), (8, 256), 1000) != MANY[:20]


def test_the_rate_changes_when_requests_come_and_nothing_else() -> None:
    slow = arrivals(3, 20, 5.0, (16, 512), (8, 256), 1000)
    assert [(job.prompt, job.new_tokens) for job in slow] == [(job.prompt, job.new_tokens) for job in MANY[:20]]
    assert slow[-1].at == pytest.approx(10 * MANY[19].at)


def test_requests_arrive_as_a_poisson_process() -> None:
    waits = [later.at - earlier.at for earlier, later in pairwise(MANY)]
    assert MANY[0].at == 0.0 and min(waits) >= 0.0
    assert statistics.mean(waits) == pytest.approx(1 / 50, rel=0.1)
    assert statistics.pstdev(waits) == pytest.approx(1 / 50, rel=0.1)


@given(st.integers(0, 1000), st.integers(1, 300), st.integers(0, 300))
def test_lengths_stay_within_their_bounds(seed: int, low: int, more: int) -> None:
    assert low <= log_uniform(random.Random(seed), low, low + more) <= low + more


def test_as_many_short_lengths_as_long_ones() -> None:
    lengths = [len(job.prompt) for job in MANY]
    octaves = [sum(low <= length < 2 * low for length in lengths) for low in (16, 32, 64, 128, 256)]
    assert min(octaves) > 0.8 * max(octaves)


def test_prompts_share_no_prefix_and_have_no_special_tokens() -> None:
    found = prompts(1, 32, 128, 151_936)
    assert len({prompt[0] for prompt in found}) == 32
    assert all(len(prompt) == 128 and min(prompt) >= 16 for prompt in found)


def test_texts_have_the_lengths_that_were_asked_for() -> None:
    found = texts(1, 200, (8, 64), ["a", "b"])
    assert {len(text.split()) for text in found} <= set(range(8, 65))
    assert len(found) == 200 and found == texts(1, 200, (8, 64), ["a", "b"])

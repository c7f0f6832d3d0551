"""How fast a model has been: sums over requests, and the rate of the last seconds."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Inside, Program

from llmos.kernel.speed import RATE_S, Speed
from llmos.syscalls.types import Timing

SECOND = 1_000_000_000


def timing(first_s: float, total_s: float) -> Timing:
    return Timing(first=int(first_s * SECOND), total=int(total_s * SECOND))


def test_nothing_is_known_before_the_first_request() -> None:
    speed = Speed()
    speed.sample(5)
    assert speed.values() == {} and (speed.rate, speed.first_token_s) == (0, 0)


def test_sums_over_requests() -> None:
    speed = Speed()
    speed.load_s = 2.5
    speed.answered(11, timing(0.5, 1.5))
    speed.answered(1, timing(0.5, 0.5))
    speed.answered(31, timing(0.5, 1.5))
    assert speed.values() == {"load_s": 2.5, "first_token_s": 0.5, "tokens_per_s": 20}


def test_the_first_token_follows_the_newest_requests() -> None:
    speed = Speed()
    speed.answered(1, timing(1.0, 1.0))
    assert speed.first_token_s == 1.0
    speed.answered(1, timing(2.0, 2.0))
    assert speed.first_token_s == pytest.approx(1.2)


def test_the_rate_counts_what_still_runs_and_falls_when_nothing_does() -> None:
    speed = Speed()
    speed.sample(0)
    attempt = speed.begin()
    attempt.tokens = 10
    speed.sample(SECOND)
    assert speed.rate == pytest.approx(10 * (1 - exp(-1 / RATE_S)))
    before = speed.rate
    speed.end(attempt, 10)  # counted already
    speed.sample(2 * SECOND)
    assert speed.rate == pytest.approx(before * exp(-1 / RATE_S))
    speed.sample(2 * SECOND)  # no time has passed
    speed.sample(400 * SECOND)
    assert speed.rate == 0


def test_what_failed_counts_with_what_it_streamed() -> None:
    speed = Speed()
    speed.sample(0)
    attempt = speed.begin()
    attempt.tokens = 3
    speed.end(attempt)
    speed.sample(SECOND)
    assert speed.rate == pytest.approx(3 * (1 - exp(-1 / RATE_S)))


@given(st.lists(st.integers(1, 100), min_size=30, max_size=30), st.integers(1, 50))
def test_the_rate_lies_between_the_least_and_the_most_it_has_seen(tokens: list[int], every: int) -> None:
    speed, now = Speed(), 0
    speed.sample(now)
    for count in tokens:
        now += every * SECOND
        speed.end(speed.begin(), count)
        speed.sample(now)
    assert 0 <= speed.rate <= max(tokens) / every


def test_a_model_shows_its_speed_and_its_weights(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.advance(1)
    number = program.start(model, "x", "infer_stream")
    kernel.now += SECOND // 2
    kernel.null.chunk({"index": 0, "text": "a", "tokens": [1]})
    kernel.advance(0.5)
    fields = program.call("stat_object", handle=model)["fields"]
    assert fields["throughput"] == pytest.approx(1 - exp(-1 / RATE_S), abs=0.001)
    assert fields["tokens_per_s"] == fields["first_token_s"] == 0
    kernel.null.release("submit")
    program.wait(number)
    fields = program.call("stat_object", handle=model)["fields"]
    assert fields["first_token_s"] == 0.5 and fields["weights"].startswith("w-")
    assert fields["tokens_per_s"] == 2, "one more token in the half second after the first"


def test_other_weights_begin_anew(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    number = program.start(model, "x", "infer_stream")
    kernel.now += SECOND // 2
    kernel.null.chunk({"index": 0, "text": "a", "tokens": [1]})
    found = kernel.kernel.models.named("tiny")
    assert found is not None
    old = found.speed
    program.control(model, "swap", to="2")
    kernel.now += SECOND
    kernel.null.release("submit")
    program.wait(number)
    assert old.values() == {"first_token_s": 0.5, "tokens_per_s": pytest.approx(1)}
    assert found.speed.values() == {}

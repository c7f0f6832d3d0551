"""The limit of a step, and of requests that arrive one after the other."""

from __future__ import annotations

import pytest
from engine.limits import Rates, decode_seconds, ideal_seconds, prefill_seconds, step_seconds
from engine.shapes import SHAPES, RowWork, Shape, Work
from hypothesis import given
from hypothesis import strategies as st
from peers.peer import Job

SMALL = Shape("small", "llama", 2, 8, 16, 2, 1, 4, 100, False)
BODY = 2 * (8 * 4 * (2 * 2 + 2 * 1) + 3 * 8 * 16)
NOTHING_BUT_READING = Rates(1000.0, {1: 1e18})
NOTHING_BUT_COMPUTING = Rates(1e18, {1: 1000.0})


def test_the_real_shapes_have_the_parameters_of_their_models() -> None:
    assert SHAPES["0.5b"].bytes == pytest.approx(988e6, rel=2e-3)
    half = SHAPES["0.5b"].body + SHAPES["0.5b"].head
    assert half == pytest.approx(494e6, rel=2e-3)
    untied = SHAPES["1.1b"].body + 2 * SHAPES["1.1b"].head
    assert untied == pytest.approx(1.1e9, rel=2e-3)
    assert SHAPES["0.5b"].token_bytes == 12_288


def test_weights_of_few_bits_are_read_with_their_scales_and_a_head_of_eight_bits_at_least() -> None:
    whole, four = SHAPES["1.1b"], SHAPES["1.1b-int4"]
    assert four.bytes == round(whole.body * 4.125 / 8) + round(whole.head * 8.125 / 8)
    assert SHAPES["1.1b-int8"].bytes == pytest.approx((whole.body + whole.head) * 8.125 / 8)
    assert (four.base, whole.base, four.body) == ("1.1b", "1.1b", whole.body)


def test_a_step_reads_weights_once_and_the_cache_of_each_row() -> None:
    work = Work.of(SMALL, [RowWork(1, 10), RowWork(1, 5)])
    assert work.bytes == 2 * (BODY + 800) + 2 * 2 * 2 * 1 * 4 * 15
    assert step_seconds(SMALL, NOTHING_BUT_READING, [RowWork(1, 10), RowWork(1, 5)]) == work.bytes / 1000


def test_a_step_computes_every_token_and_the_head_for_those_that_want_it() -> None:
    work = Work.of(SMALL, [RowWork(3, 3), RowWork(1, 5, logits=False)])
    attended = (1 + 2 + 3) + 5
    assert work.flops == 2 * 4 * BODY + 4 * 2 * 2 * 4 * attended
    assert (work.head_flops, work.logits) == (2 * 800, 1)
    rates = Rates(1e18, {1: 1000.0, 4: 2000.0})
    expected = work.flops / 2000 + work.head_flops / 1000
    assert step_seconds(SMALL, rates, [RowWork(3, 3), RowWork(1, 5, logits=False)]) == pytest.approx(expected)


def test_no_head_is_read_when_no_logits_are_wanted() -> None:
    with_head, without = (Work.of(SMALL, [RowWork(4, 4, logits)]).bytes for logits in (True, False))
    assert with_head - without == 2 * 800


def test_the_larger_of_reading_and_computing_counts() -> None:
    rows = [RowWork(1, 4)]
    reading = step_seconds(SMALL, NOTHING_BUT_READING, rows)
    computing = step_seconds(SMALL, NOTHING_BUT_COMPUTING, rows)
    assert step_seconds(SMALL, Rates(1000.0, {1: 1000.0}), rows) == max(reading, computing)


def test_rates_between_two_that_were_measured_follow_the_logarithm() -> None:
    rates = Rates(1.0, {2: 100.0, 8: 400.0})
    assert [rates.rate(rows) for rows in (1, 2, 8, 64)] == [100.0, 100.0, 400.0, 400.0]
    assert rates.rate(4) == pytest.approx(200.0)


def test_one_request_is_a_prefill_and_a_step_for_each_further_token() -> None:
    rates = Rates(5000.0, {1: 2000.0, 8: 9000.0})
    steps = [prefill_seconds(SMALL, rates, 6), *(decode_seconds(SMALL, rates, 1, 6 + made) for made in (1, 2))]
    assert ideal_seconds(SMALL, rates, [Job(range(6), 3)]) == pytest.approx(sum(steps))


def test_a_request_that_comes_while_others_run_joins_the_next_step() -> None:
    first, late = Job(range(4), 3), Job(range(5), 1, at=1e-9)
    steps = [
        [RowWork(4, 4)],
        [RowWork(1, 5), RowWork(5, 5)],
        [RowWork(1, 6)],
    ]
    expected = sum(step_seconds(SMALL, NOTHING_BUT_READING, rows) for rows in steps)
    assert ideal_seconds(SMALL, NOTHING_BUT_READING, [first, late]) == pytest.approx(expected)


def test_nothing_runs_before_it_arrives() -> None:
    alone = ideal_seconds(SMALL, NOTHING_BUT_READING, [Job(range(4), 2)])
    assert ideal_seconds(SMALL, NOTHING_BUT_READING, [Job(range(4), 2, at=50.0)]) == pytest.approx(50.0 + alone)


def test_a_prefix_in_the_cache_is_read_and_not_computed() -> None:
    whole, rest = (prefill_seconds(SMALL, NOTHING_BUT_COMPUTING, 100, cached) for cached in (0, 90))
    assert rest < whole / 5
    read = prefill_seconds(SMALL, NOTHING_BUT_READING, 100)
    assert prefill_seconds(SMALL, NOTHING_BUT_READING, 100, 90) == read


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 12), st.floats(0.0, 5.0)), min_size=1, max_size=8
    )
)
def test_together_is_never_slower_than_one_after_the_other(found: list[tuple[int, int, float]]) -> None:
    rates = Rates(5e4, {1: 1e5, 64: 4e5})
    jobs = [Job(range(prompt), tokens, at) for prompt, tokens, at in found]
    together = ideal_seconds(SMALL, rates, jobs)
    apart = sum(ideal_seconds(SMALL, rates, [Job(job.prompt, job.new_tokens)]) for job in jobs)
    longest = max(ideal_seconds(SMALL, rates, [Job(job.prompt, job.new_tokens)]) for job in jobs)
    assert longest <= together + 1e-9 <= max(job.at for job in jobs) + apart + 1e-6

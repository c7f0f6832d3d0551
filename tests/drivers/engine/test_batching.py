"""Which lines share a batch: limits are kept, nobody starves, nothing is wasted without need."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.engine.batching import BatchLimits, choose

LIMITS = BatchLimits(lines=8, tokens=256, waste=0.125, free=16)


@dataclass
class Waiting:
    length: int
    group: Hashable = ""


def chosen(*lengths: int, limits: BatchLimits = LIMITS) -> list[int]:
    waiting = [Waiting(length) for length in lengths]
    return [lengths[index] for index in choose(waiting, limits)]


lines = st.lists(st.builds(Waiting, st.integers(1, 300), st.sampled_from("ab")), min_size=1, max_size=40)


@given(lines)
def test_a_batch_keeps_the_limits(waiting: list[Waiting]) -> None:
    found = choose(waiting, LIMITS)
    lengths = [waiting[index].length for index in found]
    padded = len(found) * max(lengths)
    assert 0 in found and len(found) == len(set(found)) <= LIMITS.lines
    assert {waiting[index].group for index in found} == {waiting[0].group}
    assert padded <= LIMITS.tokens or len(found) == 1
    assert padded - sum(lengths) <= max(LIMITS.waste * padded, LIMITS.free)


@given(lines)
def test_everything_gets_its_turn_as_the_first_waits_no_longer(waiting: list[Waiting]) -> None:
    left, steps = list(waiting), 0
    while left:
        first = left[0]
        gone = {id(left[index]) for index in choose(left, LIMITS)}
        left = [line for line in left if id(line) not in gone]
        assert id(first) in gone
        steps += 1
    assert steps <= len(waiting)


@given(st.integers(1, 32), st.integers(1, 30))
def test_lines_of_one_length_fill_a_batch(length: int, count: int) -> None:
    assert len(chosen(*[length] * count)) == min(count, LIMITS.lines, max(1, LIMITS.tokens // length))


def test_the_nearest_in_length_join_first() -> None:
    assert chosen(20, 200, 21, 3, 19, limits=BatchLimits(3, 256, 0.125, 0)) == [19, 20, 21]
    assert chosen(20, 40, 10, limits=BatchLimits(3, 256, 0.125, 0)) == [20]


def test_a_little_padding_is_free() -> None:
    assert chosen(2, 9, limits=BatchLimits(8, 256, 0.0, 7)) == [2, 9]
    assert chosen(2, 9, limits=BatchLimits(8, 256, 0.0, 6)) == [2]


def test_one_line_beyond_the_tokens_goes_alone() -> None:
    assert chosen(300, 300) == [300] and chosen() == []

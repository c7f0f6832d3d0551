"""Prompt lookup against looking through everything."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.engine.speculation import LONGEST, SHORTEST, Lookup

few = st.lists(st.integers(0, 3), max_size=60)


def searched(tokens: Sequence[int], count: int) -> list[int]:
    """What follows the latest earlier place of the longest end, taken as repeating from there on."""
    for length in range(min(LONGEST, len(tokens)), SHORTEST - 1, -1):
        end = list(tokens[len(tokens) - length :])
        for start in range(len(tokens) - length - 1, -1, -1):
            if list(tokens[start : start + length]) == end:
                going = list(tokens)
                for at in range(count):
                    going.append(going[start + length + at])
                return going[len(tokens) :]
    return []


@given(few, few, st.integers(0, 40))
def test_it_finds_what_a_search_finds_however_the_tokens_came(first: list[int], more: list[int], count: int) -> None:
    lookup = Lookup(first)
    for token in more:
        lookup.extend([token])
    assert lookup.propose(count) == searched(first + more, count) == Lookup(first + more).propose(count)
    assert len(lookup) == len(first) + len(more)


@pytest.mark.parametrize(
    ("tokens", "proposed"),
    [
        ([], []),
        ([1, 1], []),
        ([1, 2, 3, 9, 1, 2], [3, 9, 1, 2]),
        ([1, 2, 3, 1, 2, 4, 1, 2], [4, 1, 2, 4]),
        ([5, 1, 2, 3, 9, 5, 7, 1, 2, 8, 5, 1, 2], [3, 9, 5, 7]),
        ([7, 7, 7], [7, 7, 7, 7]),
    ],
)
def test_the_longest_end_counts_and_then_the_latest_place(tokens: list[int], proposed: list[int]) -> None:
    assert Lookup(tokens).propose(4) == proposed


def test_asking_changes_nothing() -> None:
    lookup = Lookup([1, 2, 3, 1, 2])
    assert lookup.propose(3) == lookup.propose(3) == [3, 1, 2]

"""Figures of runs, and the table of them."""

from __future__ import annotations

import pytest
from engine.cells import Cell, agreement, gaps, lines, percentile, streams
from engine.limits import Rates
from peers.peer import Answer

RATES = Rates(1.0, {1: 1.0})


def test_decoding_begins_when_all_have_their_first_token() -> None:
    early = Answer([1, 2, 3], [1.0, 2.0, 4.0], submitted=0.5)
    late = Answer([4, 5, 6], [2.0, 3.0, 6.0], submitted=0.0)
    found = streams([early, late])
    assert found == {"total": 6 / 6.0, "decode": 3 / 4.0, "first": (0.5 + 2.0) / 2}


def test_a_run_of_one_token_each_decodes_nothing() -> None:
    assert streams([Answer([1], [2.0])])["decode"] == 0.0


def test_gaps_are_those_that_end_in_the_window() -> None:
    answers = [Answer([1] * 4, [0.0, 1.0, 3.0, 6.0]), Answer([1] * 2, [2.0, 2.5])]
    assert gaps(answers) == [1.0, 2.0, 3.0, 0.5]
    assert gaps(answers, 1.0, 3.0) == [2.0, 0.5]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 10.0), (0.95, 19.0), (1.0, 20.0)])
def test_a_percentile_is_a_sample(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(20, 0, -1)], share) == expected


def test_no_samples_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_the_share_of_the_limit_turns_round_where_less_is_better() -> None:
    more = Cell("s", "m", "c", "p", "tokens/s", [4.0, 5.0, 9.0], ideal=lambda rates: 10.0)
    less = Cell("s", "m", "c", "p", "s", [4.0, 5.0, 9.0], less=True, ideal=lambda rates: 1.0)
    for cell in (more, less):
        cell.settle(RATES)
    assert (more.share, less.share) == (0.5, 0.2)
    assert Cell("s", "m", "c", "p", "s", [1.0]).share is None


def test_the_table_has_the_best_first() -> None:
    rates = [Cell("requests", "m", "8", name, "tokens/s", [value]) for name, value in (("slow", 1.0), ("fast", 2.0))]
    times = [Cell("gap", "m", "x", name, "s", [value], less=True) for name, value in (("slow", 2.0), ("fast", 1.0))]
    shown = "\n".join(lines([*rates, *times]))
    assert shown.index("fast") < shown.index("slow")
    second = shown[shown.index("gap, m, x") :]
    assert second.index("fast") < second.index("slow")


def test_agreement_ends_with_the_first_difference() -> None:
    tokens = {"judge": [1, 2, 3], "same": [1, 2, 3], "other": [1, 9, 3]}
    assert agreement(tokens, "judge") == {"judge": 3, "same": 3, "other": 1}
    assert agreement(tokens, "absent") == {}


def test_what_is_kept_can_be_read_without_the_code() -> None:
    cell = Cell("requests", "m", "8", "p", "tokens/s", [4.0, 6.0, 5.0], {"decode": [7.0]}, ideal=lambda rates: 10.0)
    cell.settle(RATES)
    raw = cell.raw()
    assert (raw["median"], raw["limit"], raw["of_limit"]) == (5.0, 10.0, 0.5)
    assert raw["samples"] == [4.0, 6.0, 5.0] and raw["more"] == {"decode": [7.0]}

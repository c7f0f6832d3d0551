"""Curves as text: what is high is high, what is long is squeezed, and several stand beside each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos.userland.reports.curves import BARS, chart, sparkline

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)


def test_a_line_of_bars() -> None:
    assert sparkline([]) == "" and sparkline([3.0]) == BARS[0]
    assert sparkline([0, 7]) == BARS[0] + BARS[-1] and sparkline(range(8)) == BARS
    assert sparkline([4, 2, 0, 0, 8, 8], width=3) == BARS[3] + BARS[0] + BARS[-1]


@given(VALUES, st.integers(1, 40))
def test_a_line_is_never_wider_than_it_may_be(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


def test_a_chart_of_a_falling_curve() -> None:
    lines = chart({"loss": [(1, 4.0), (2, 2.0), (3, 0.0)]}, width=5, height=3)
    assert lines == ["4 │●", "  │  ●", "0 │    ●", "  └─────", "   1   3", "● loss"]


def test_where_curves_meet_the_first_is_seen() -> None:
    lines = chart({"a": [(0, 1.0), (1, 1.0)], "b": [(0, 1.0), (1, 0.0)]}, width=2, height=2)
    assert lines[0].endswith("│●●") and lines[1].endswith("│ ○") and lines[-2:] == ["● a", "○ b"]


def test_high_values_at_the_beginning_do_not_flatten_the_rest() -> None:
    curve = [(0.0, 1000.0), *((float(step), 2.0 - step / 20) for step in range(1, 20))]
    (first, *_) = chart({"loss": curve})
    assert float(first.split("│")[0]) < 10


def test_curves_that_are_flat_or_empty() -> None:
    assert chart({}) == [] and chart({"loss": []}) == []
    assert chart({"loss": [(1, 2.0)]}, width=3, height=1)[0] == "2 │●"


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.tuples(st.floats(0, 1e4), st.floats(-1e4, 1e4)))))
def test_a_chart_has_its_size_whatever_the_points(curves: dict[str, list[tuple[float, float]]]) -> None:
    lines = chart(curves, width=20, height=4)
    assert not lines or len(lines) == 6 + len(curves)

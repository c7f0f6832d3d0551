"""Snapshots and the window they are kept in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.advice.snapshot import Snapshot, Window
from llmos.syscalls.types import Metric


def test_figures_are_found_by_name_and_labels() -> None:
    def counter(value: float, **labels: str) -> Metric:
        return Metric(kind="counter", value=value, labels=labels)

    metrics = {"a{x=1}": counter(1, x="1", y="1"), "a{x=2}": counter(2, x="2", y="1"), "ab": counter(4)}
    seen = Snapshot(0.0, metrics)
    assert [metric.value for metric in seen.family("a")] == [1, 2]
    assert (seen.value("a"), seen.value("a", x="2"), seen.value("a", y="1"), seen.value("none")) == (3, 2, 3, 0)


@given(st.lists(st.floats(0.1, 20), min_size=1, max_size=60))
def test_the_window_gives_what_is_as_old_as_it_is_long_and_stays_small(steps: list[float]) -> None:
    window, at, times = Window(30, points=10), 0.0, []
    for step in steps:
        at += step
        times.append(at)
        first = window.add(Snapshot(at))
        assert first.at in times and (first.at == times[0] or first.at <= at - 30)
        assert at - first.at <= 30 + 20 + 3 and len(window._kept) <= 12

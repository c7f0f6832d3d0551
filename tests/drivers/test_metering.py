"""What requests take, told piece by piece: the pieces add up, and nothing is told twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.contract import Usage
from llmos.drivers.metering import REPORT_S, Metering


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def metering() -> tuple[Metering, Clock]:
    clock = Clock()
    made = Metering(clock)
    made.begin("r", "weights", "batch", "acme")
    return made, clock


def test_reports_are_due_while_something_runs() -> None:
    made, clock = metering()
    assert not made.due()
    clock.now += REPORT_S
    assert made.due()
    made.report({})
    assert not made.due()
    clock.now += 10.0
    made.end("r", 1, 1)
    assert not made.due(), "nothing runs"
    made.begin("s", "weights", "batch", "")
    assert not made.due(), "it has just begun"


def test_a_report_names_whom_it_is_about_and_says_what_is_new() -> None:
    made, _ = metering()
    (first,) = made.report({"r": Usage(100, 5, 4096), "stranger": Usage(1, 1)})
    assert (first.work_class, first.tenant, first.model, first.request) == ("batch", "acme", "weights", "r")
    assert (first.device_ns, first.tokens, first.bytes) == (100, 5, 4096)
    assert made.report({"r": Usage(100, 5, 1024)}) == []
    last = made.end("r", 150, 9)
    assert last is not None and (last.device_ns, last.tokens, last.bytes) == (50, 4, 0)
    assert made.end("r", 150, 9) is None, "told once"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9), st.integers(0, 9)), max_size=8), st.integers(0, 50))
def test_the_pieces_are_the_whole(steps: list[tuple[int, int, int]], last: int) -> None:
    made, _ = metering()
    told, ns, tokens = [], 0, 0
    for more, new, held in steps:
        ns, tokens = ns + more, tokens + new
        told += made.report({"r": Usage(ns, tokens, held)})
    end = made.end("r", ns + last, tokens)
    told += [] if end is None else [end]
    assert sum(spent.device_ns for spent in told) == ns + last
    assert sum(spent.tokens for spent in told) == tokens
    assert sum(spent.bytes for spent in told) == max([held for *_, held in steps], default=0)

"""Processes that say nothing: which of them are stuck."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.engine.parallel.silence import LOOK_S, Silence, busy_seconds

IDLE, HANG = 10.0, 30.0


def looks(silence: Silence, times: Iterator[float] | list[float]) -> list[bool]:
    return [silence.stuck(now) for now in times]


def test_one_that_computes_nothing_is_stuck_and_one_that_computes_is_not() -> None:
    seconds = [float(each) for each in range(13)]
    assert looks(Silence(IDLE, HANG, lambda: 5.0), seconds) == [False] * 11 + [True, True]
    used = iter(range(100))
    busy = Silence(IDLE, HANG, lambda: float(next(used)))
    assert not any(looks(busy, seconds)) and busy.seconds == 12
    unknown = Silence(IDLE, HANG, lambda: None)
    assert looks(unknown, seconds) == [False] * 11 + [True, True]


def test_nobody_computes_for_ever_without_a_word() -> None:
    used = iter(range(100))
    busy = Silence(IDLE, HANG, lambda: float(next(used)))
    assert looks(busy, [float(each) for each in range(33)]) == [False] * 31 + [True, True]


def test_now_and_then_is_enough() -> None:
    seconds = iter(range(30))
    seldom = Silence(IDLE, HANG, lambda: float(next(seconds) // 9))
    assert not any(looks(seldom, [float(each) for each in range(30)]))


@given(st.lists(st.floats(0, 1e6), max_size=5))
def test_a_machine_that_stood_still_is_no_silence(gaps: list[float]) -> None:
    silence, now = Silence(IDLE, HANG, lambda: None), 0.0
    for gap in gaps:
        now += gap
        assert not silence.stuck(now)
    assert silence.seconds <= LOOK_S * max(0, len(gaps) - 1)


def test_what_a_process_has_computed_is_told_by_the_system(tmp_path: Path) -> None:
    before = busy_seconds(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    after = busy_seconds(os.getpid())
    assert before is not None and after is not None and after > before
    assert busy_seconds(1, tmp_path) is None
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "stat").write_text("1 (a name) with) S 0\n")
    assert busy_seconds(1, tmp_path) is None

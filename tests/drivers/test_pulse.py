"""The pulse against a clock that a test turns."""

from __future__ import annotations

from llmos.drivers.pulse import INTERVAL_S, Pulse
from llmos.syscalls.driver import Beat


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.beats: list[Beat] = []
        self.pulse = Pulse(self.beats.append, lambda: self.now)


def test_the_first_beat_has_number_zero_and_later_ones_count_up() -> None:
    bench = Bench()
    for _ in range(3):
        bench.pulse.declare("", 3.0)
        bench.now += 1
    assert [beat.seq for beat in bench.beats] == [0, 1, 2]


def test_a_fresh_promise_is_not_repeated() -> None:
    bench = Bench()
    for _ in range(5):
        bench.pulse.declare("requests", 3.0)
        bench.now += 0.04
    assert len(bench.beats) == 1


def test_a_promise_is_repeated_when_it_gets_old() -> None:
    bench = Bench()
    bench.pulse.declare("requests", 3.0)
    bench.now += 0.3
    bench.pulse.declare("requests", 3.0)
    assert len(bench.beats) == 2


def test_longer_work_is_declared_at_once() -> None:
    bench = Bench()
    bench.pulse.declare("requests", 3.0)
    bench.pulse.declare("requests", 3.1)
    assert [beat.may_take_s for beat in bench.beats] == [3.0, 3.1]


def test_after_long_work_a_short_step_is_not_allowed_as_long() -> None:
    bench = Bench()
    bench.pulse.declare("requests", 60.0)
    bench.pulse.declare("requests", 3.0)
    assert [beat.may_take_s for beat in bench.beats] == [60.0, 3.0]


def test_another_activity_is_declared_at_once() -> None:
    bench = Bench()
    bench.pulse.declare("", 3.0)
    bench.pulse.declare("requests", 3.0)
    assert [beat.busy_with for beat in bench.beats] == ["", "requests"]


def test_a_sign_of_life_renews_what_was_declared() -> None:
    bench = Bench()
    bench.pulse.declare("load", 60.0)
    bench.pulse.alive()
    bench.now += 5
    bench.pulse.steps = 7
    bench.pulse.alive()
    said = [(beat.busy_with, beat.may_take_s, beat.steps) for beat in bench.beats]
    assert said == [("load", 60.0, 0), ("load", 60.0, 7)]


def test_an_idle_loop_beats_once_a_second() -> None:
    bench = Bench()
    bench.pulse.declare("", 3.0)
    assert bench.pulse.until_due(3.0) == INTERVAL_S
    bench.now += 0.5
    assert bench.pulse.until_due(3.0) == 0.5
    bench.now += 5
    assert bench.pulse.until_due(3.0) == 0


def test_an_idle_loop_with_a_short_limit_beats_well_within_it() -> None:
    bench = Bench()
    for _ in range(10):
        bench.pulse.declare("", 0.3)
        wait = bench.pulse.until_due(0.3)
        assert 0 < wait <= 0.1 + 1e-9
        bench.now += wait
    assert len(bench.beats) == 10

"""The restart policy with a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.restart import SECOND, GiveUp, Restart, RestartPolicy, RestartRules


def restart(policy: RestartPolicy, now: float, cause: str = "signal 9") -> Restart:
    decision = policy.exited(int(now * SECOND), cause)
    assert isinstance(decision, Restart)
    return decision


def test_the_first_restart_is_at_once_then_the_pauses_double() -> None:
    policy = RestartPolicy(RestartRules(restarts=100))
    now, delays = 0.0, []
    for attempt in range(1, 9):
        decision = restart(policy, now)
        assert decision.attempt == attempt
        delays.append(decision.at / SECOND - now)
        now = decision.at / SECOND
    assert delays == [0, 1, 2, 4, 8, 16, 30, 30]


def test_the_decision_says_why() -> None:
    policy = RestartPolicy()
    first = restart(policy, 0, "exit status 3").reason
    assert first.code == "driver.restart" and "exit status 3" in first.text and "at once" in first.text
    second = restart(policy, 0).reason
    assert "in 1 s" in second.text and second.numbers == {"delay_s": 1, "attempt": 2, "recent": 2}


def test_a_sixth_exit_within_two_minutes_is_failure() -> None:
    policy = RestartPolicy()
    now = 0.0
    for _ in range(5):
        now = restart(policy, now).at / SECOND
    decision = policy.exited(int(now * SECOND), "exit status 1")
    assert isinstance(decision, GiveUp)
    assert (decision.restarts, decision.cause, policy.failed, policy.restarts) == (5, "exit status 1", True, 5)
    assert decision.reason.code == "driver.failed" and "reset" in decision.reason.text
    assert isinstance(policy.exited(int((now + 1000) * SECOND), "later"), GiveUp)


def test_the_period_slides() -> None:
    policy = RestartPolicy()
    for now in (0, 30, 60, 90, 119):
        restart(policy, now)
    restart(policy, 120)
    assert isinstance(policy.exited(int(149.9 * SECOND), ""), GiveUp)


def test_ten_seconds_of_health_reset_the_pause() -> None:
    policy = RestartPolicy()
    restart(policy, 0)
    restart(policy, 1)
    policy.healthy(5 * SECOND)
    policy.healthy(15 * SECOND - 1)
    assert restart(policy, 16).attempt == 3
    policy.healthy(20 * SECOND)
    policy.healthy(25 * SECOND)
    policy.healthy(30 * SECOND)
    decision = restart(policy, 31)
    assert decision.attempt == 1 and decision.at == 31 * SECOND


def test_an_exit_interrupts_the_health() -> None:
    policy = RestartPolicy()
    policy.healthy(0)
    restart(policy, 1)
    policy.healthy(11 * SECOND)
    assert restart(policy, 12).attempt == 2


def test_health_does_not_hide_a_slow_crash_loop() -> None:
    policy = RestartPolicy()
    for start in range(0, 75, 15):
        assert restart(policy, start).attempt == 1
        policy.healthy(start * SECOND)
        policy.healthy((start + 10) * SECOND)
    assert isinstance(policy.exited(75 * SECOND, ""), GiveUp)


def test_reset_forgets_everything() -> None:
    policy = RestartPolicy(RestartRules(restarts=1))
    restart(policy, 0)
    assert isinstance(policy.exited(0, ""), GiveUp)
    policy.reset()
    assert not policy.failed and restart(policy, 1).attempt == 1


def test_no_restarts_allowed() -> None:
    assert isinstance(RestartPolicy(RestartRules(restarts=0)).exited(0, "x"), GiveUp)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=40),
    st.integers(1, 6),
    st.integers(1, 120),
)
def test_never_more_restarts_in_a_period_than_allowed(steps: list[tuple[int, bool]], allowed: int, period: int) -> None:
    policy = RestartPolicy(RestartRules(restarts=allowed, period_s=period))
    now = 0
    exits: list[int] = []
    for gap, healthy in steps:
        now += gap * SECOND
        if healthy:
            policy.healthy(now)
            continue
        decision = policy.exited(now, "")
        if isinstance(decision, GiveUp):
            recent = [at for at in exits if now - at < period * SECOND]
            assert len(recent) == allowed
            return
        assert now <= decision.at <= now + 30 * SECOND
        exits.append(now)
    for at in exits:
        assert len([other for other in exits if 0 <= other - at < period * SECOND]) <= allowed


def test_the_pause_stays_bounded_for_any_number_of_restarts() -> None:
    policy = RestartPolicy(RestartRules(restarts=10_000))
    for _ in range(2000):
        decision = policy.exited(0, "")
    assert isinstance(decision, Restart) and decision.at == 30 * SECOND


@pytest.mark.parametrize("delay", [0.5, 5])
def test_the_constants_are_the_callers(delay: float) -> None:
    policy = RestartPolicy(RestartRules(first_delay_s=delay, max_delay_s=delay))
    restart(policy, 0)
    assert restart(policy, 0).at == int(delay * SECOND)
    assert restart(policy, 0).at == int(delay * SECOND)


def test_a_restart_on_request_is_no_crash() -> None:
    policy = RestartPolicy(RestartRules(restarts=1))
    policy.exited(0, "crash")
    decision = policy.requested(5)
    assert (decision.at, policy.restarts) == (5, 2)
    assert isinstance(policy.exited(6, "crash"), Restart)
    assert isinstance(policy.exited(7, "crash"), GiveUp)

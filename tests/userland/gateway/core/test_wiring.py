"""What changes while the gateway runs."""

from __future__ import annotations

from llmos.userland.gateway.core.wiring import State


def test_idle_is_when_no_request_runs() -> None:
    state = State()
    assert state.idle.is_set()
    state.begin()
    state.begin()
    state.end()
    assert not state.idle.is_set() and state.running == 1
    state.end()
    assert state.idle.is_set() and not state.draining

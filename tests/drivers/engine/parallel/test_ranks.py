"""Ranks that end or fail are told with their cause; the others end with `stop`. Real processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from queue import SimpleQueue

import pytest
import torch
from llmos.drivers.engine.parallel.ranks import Crew, Ranks

Lost = SimpleQueue[str]


def crew(parts: str) -> Crew:
    return Crew(2, parts, "cpu0", 1, {}, torch.device("cpu"))


@pytest.fixture
def lost() -> Iterator[Lost]:
    yield SimpleQueue()


@pytest.mark.slow
def test_a_rank_that_cannot_begin_says_why(lost: Lost) -> None:
    ranks = Ranks(crew("llmos.drivers.devices.cpu:nowhere"), lost.put)
    ranks.start()
    try:
        cause = lost.get(timeout=60)
    finally:
        ranks.stop()
    assert "cpu0: rank 1 (process" in cause
    assert "has no attribute 'nowhere'" in cause


@pytest.mark.slow
def test_ranks_that_are_stopped_before_they_met_leave_without_a_word(lost: Lost) -> None:
    ranks = Ranks(crew("llmos.drivers.devices.cpu:parts"), lost.put)
    ranks.start()
    ranks.stop()
    assert lost.empty()
    assert ranks.process_bytes == 0


@pytest.mark.slow
def test_a_rank_that_stands_still_is_lost(lost: Lost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos.drivers.engine.parallel.ranks.SILENCE_S", 3.0)
    ranks = Ranks(crew("llmos.drivers.devices.cpu:parts"), lost.put)
    ranks.start()
    try:
        ranks.meet(lambda *_: None)
        assert lost.empty()
        [rank] = ranks._others
        rank.process.send_signal(signal.SIGSTOP)
        cause = lost.get(timeout=60)
    finally:
        rank.process.send_signal(signal.SIGCONT)
        ranks.stop()
    assert "gave no sign of life for" in cause and str(rank.process.pid) in cause

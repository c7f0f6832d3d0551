"""Work on several connections at a time."""

from __future__ import annotations

import threading

import pytest
from llmos.drivers.filesystems.models.bring.connections import CONNECTIONS, on_connections


def test_all_items_are_worked_on_and_several_at_a_time() -> None:
    together, done = threading.Barrier(CONNECTIONS), []

    def work(item: int, stop: threading.Event) -> None:
        together.wait()
        done.append(item)

    on_connections(range(2 * CONNECTIONS), work)
    assert sorted(done) == list(range(2 * CONNECTIONS))


def test_the_first_that_fails_ends_the_others_and_is_told() -> None:
    started, ended = threading.Event(), []

    def work(item: int, stop: threading.Event) -> None:
        if item == 0:
            started.wait()
            raise ValueError("broken")
        started.set()
        ended.append(stop.wait(60))

    with pytest.raises(ValueError, match="broken"):
        on_connections(range(CONNECTIONS), work)
    assert ended and all(ended)


def test_what_has_not_begun_does_not_begin_after_a_failure() -> None:
    begun = []

    def work(item: int, stop: threading.Event) -> None:
        begun.append(item)
        if item == 0:
            raise ValueError("broken")
        stop.wait(60)

    with pytest.raises(ValueError, match="broken"):
        on_connections(range(10 * CONNECTIONS), work)
    assert len(begun) < 10 * CONNECTIONS

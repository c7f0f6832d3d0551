"""Requests that somebody wants to end."""

from __future__ import annotations

import threading

from llmos.drivers.engine.cancels import Cancels


def test_what_other_threads_tell_is_taken_once() -> None:
    cancels = Cancels()
    assert cancels.take() == set()
    threads = [threading.Thread(target=cancels.put, args=(str(at % 5),)) for at in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cancels.take() == {"0", "1", "2", "3", "4"}
    assert cancels.take() == set()

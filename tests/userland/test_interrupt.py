"""SIGINT is held where Python's own handler is in place, and nowhere else."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from llmos.userland.interrupt import HeldInterrupt


def test_interrupts_are_counted_and_wake() -> None:
    woken: list[int] = []
    with HeldInterrupt(lambda: woken.append(1), 1) as held:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert held.count == 3 and woken == [1, 1]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_wakes_a_wait_that_has_not_begun_when_it_comes() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    try:
        with HeldInterrupt(lambda: None, waking=writing):
            os.kill(os.getpid(), signal.SIGINT)
            assert os.read(reading, 8) == bytes([signal.SIGINT])
        assert signal.set_wakeup_fd(-1) == -1
        signal.set_wakeup_fd(writing)
        with HeldInterrupt(lambda: None, waking=writing):
            assert signal.set_wakeup_fd(writing) == writing
        assert signal.set_wakeup_fd(-1) == writing
    finally:
        os.close(reading)
        os.close(writing)


def test_a_handler_of_the_program_is_left_alone() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with HeldInterrupt(lambda: None) as held:
            os.kill(os.getpid(), signal.SIGINT)
        assert (held.count, seen) == (0, [signal.SIGINT])
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_hold_nothing() -> None:
    def work() -> None:
        with HeldInterrupt(lambda: None):
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_descriptor_that_another_thread_has_closed_is_nothing_to_wake() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    os.close(reading)
    os.close(writing)
    with HeldInterrupt(lambda: None, waking=writing) as held:
        os.kill(os.getpid(), signal.SIGINT)
        assert held.count == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler and signal.set_wakeup_fd(-1) == -1

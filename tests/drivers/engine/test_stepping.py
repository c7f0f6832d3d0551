"""A function of somebody else's, step by step: never beside the caller, ended when asked, errors and all."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from llmos.drivers.engine.stepping import Stepped


def stepped_threads() -> int:
    return sum(thread.name == "stepped" for thread in threading.enumerate())


def test_it_goes_on_only_while_it_is_waited_for() -> None:
    seen: list[int] = []

    def count(halt: Callable[[], None]) -> str:
        for number in range(3):
            seen.append(number)
            halt()
        return "done"

    stepped = Stepped(count)
    assert seen == []
    for number in range(3):
        assert not stepped.advance()
        assert seen == list(range(number + 1))
    assert stepped.advance() and stepped.result == "done"
    stepped.close()
    assert stepped_threads() == 0


def test_what_it_raises_is_raised_to_the_caller() -> None:
    def fail(halt: Callable[[], None]) -> None:
        halt()
        raise ValueError("no")

    stepped = Stepped(fail)
    assert not stepped.advance()
    with pytest.raises(ValueError, match="no"):
        stepped.advance()
    stepped.close()
    assert stepped_threads() == 0


def test_closing_ends_it_where_it_halts_and_lets_it_clean_up() -> None:
    cleaned = []

    def endless(halt: Callable[[], None]) -> None:
        try:
            while True:
                halt()
        finally:
            cleaned.append(True)

    stepped = Stepped(endless)
    for _ in range(5):
        stepped.advance()
    stepped.close()
    assert cleaned == [True] and stepped_threads() == 0


def test_closing_before_the_first_step_runs_nothing() -> None:
    seen: list[bool] = []
    stepped = Stepped(lambda halt: seen.append(True))
    stepped.close()
    assert seen == [] and stepped_threads() == 0

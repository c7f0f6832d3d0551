"""Whoever costs least while away, for the room it gives, leaves first."""

from __future__ import annotations

from llmos.kernel.arbiter.residence import Candidate, choose
from llmos.kernel.arbiter.value import ByValue


def gone(view: list[Candidate], needed: int) -> list[str]:
    return [choice.candidate.model for choice in choose(ByValue(), view, needed, 0)]


def test_reload_seconds_use_and_bytes_decide() -> None:
    plain = Candidate("plain", 10, reload_s=2, rate=0.5)
    for better in (
        Candidate("dear", 10, reload_s=3, rate=0.5),
        Candidate("wanted", 10, reload_s=2, rate=0.6),
        Candidate("a small one", 9, reload_s=2, rate=0.5),
        Candidate("younger", 10, reload_s=2, rate=0.5, used=1),
    ):
        assert gone([plain, better], 9) == gone([better, plain], 9) == ["plain"]


def test_what_is_not_needed_for_the_room_stays() -> None:
    small = Candidate("small", 2, reload_s=1, rate=0.1)
    middle = Candidate("middle", 5, reload_s=10, rate=0.1)
    large = Candidate("large", 20, reload_s=80, rate=0.1)
    assert gone([small, middle, large], 6) == ["small", "middle"]
    assert gone([small, middle, large], 8) == ["large"]
    assert gone([small, middle, large], 21) == ["small", "large"]


def test_the_numbers_of_a_choice() -> None:
    (choice,) = choose(ByValue(), [Candidate("a", 5, reload_s=2, rate=0.01)], 1, 5_000_000_000)
    assert choice.numbers == {"reload_s": 2, "uses_per_hour": 36.0, "idle_s": 5.0}

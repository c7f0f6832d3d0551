"""Which requests of the null device go on."""

from __future__ import annotations

from collections import Counter

from llmos.drivers.contract import Prompt, Request
from llmos.drivers.devices.null_turns import NullTurns


def request(id: str, work_class: str = "interactive", model: str = "m") -> Request:
    return Request(id, model, Prompt(text="x"), work_class=work_class)


def test_as_many_of_each_model_as_it_has_slots_the_higher_class_first() -> None:
    every = [request("b1", "batch"), request("b2", "batch"), request("i"), request("other", "background", "n")]
    assert NullTurns().choose(every, {"m": 2, "n": 1}) == {"i", "b1", "other"}
    assert NullTurns().choose([], {"m": 2}) == set()


def test_a_lower_class_gets_its_part_of_the_steps() -> None:
    turns = NullTurns()
    turns.set_budget({"batch": 0.25})
    every = [request("i"), request("b", "batch")]
    chosen = Counter(id for _ in range(100) for id in turns.choose(every, {"m": 1}))
    assert 22 <= chosen["b"] <= 28 and chosen.total() == 100

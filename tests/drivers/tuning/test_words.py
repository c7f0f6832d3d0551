"""The words of a recipe fit each other."""

from __future__ import annotations

from llmos.drivers.tuning import words
from llmos.drivers.tuning.metrics.by_objective import MAIN


def test_groups_of_methods_are_methods_and_groups_of_objectives_objectives() -> None:
    assert {*words.WHOLE, *words.LOW_RANK, *words.PROMPTS, words.BOTTLENECK} <= words.METHODS.keys()
    assert {*words.SCORED, *words.CLASSES} <= words.OBJECTIVES.keys()


def test_whatever_is_judged_has_a_figure_to_be_judged_by() -> None:
    assert MAIN.keys() == words.OBJECTIVES.keys() and words.SEVERAL not in MAIN

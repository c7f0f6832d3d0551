"""The option `unlabelled` of a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.options.unlabelled import MOST, Unlabelled
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument


def recipe(asked: Any, objective: str = "classification") -> Recipe:
    return Recipe.of({"method": "lora", "objective": objective, "options": {"unlabelled": asked}})


def test_it_is_read_whole() -> None:
    asked = {"files": ["raw*"], "weight": 0.5, "confidence": 0.8, "soft": True, "sharpen": 0.5, "rows": 4, "choose": 9,
             "doubt": "margin"}  # fmt: skip
    assert recipe(asked).unlabelled == Unlabelled(("raw*",), 0.5, 0.8, True, 0.5, 4, 9, "margin")
    assert Recipe.of({"method": "lora"}).unlabelled is None


@pytest.mark.parametrize(
    ("asked", "name", "said"),
    [
        (["raw*"], "unlabelled", "a map"),
        ({}, "files", "needs the option files"),
        ({"files": ["a"], "confidence": 1}, "confidence", "below 1"),
        ({"files": ["a"], "sharpen": 0}, "sharpen", "above 0"),
        ({"files": ["a"], "doubt": "chance"}, "doubt", "entropy, margin, least"),
        ({"files": ["a"], "choose": MOST + 1}, "choose", "at most 100"),
        ({"files": ["a"], "choos": 1}, "choos", "did you mean choose"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(asked: Any, name: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        recipe(asked)
    assert caught.value.name == name and caught.value.want


def test_it_is_for_classes() -> None:
    with pytest.raises(BadArgument, match="none of causal-lm; it is for classification, token-class"):
        recipe({"files": ["a"]}, "causal-lm")

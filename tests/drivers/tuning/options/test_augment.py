"""The option `augment` of a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.options.augment import Augment
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument


def test_it_is_read_whole() -> None:
    made = recipe({"copies": 2, "typos": 0.25, "synonyms": {"Fox": ["dog", "cat"]}, "synonym_share": 1})
    assert made.augment == Augment(2, 0.25, synonyms=(("fox", ("dog", "cat")),), synonym_share=1.0)
    assert Recipe.of({"method": "lora"}).augment is None


def recipe(asked: Any) -> Recipe:
    return Recipe.of({"method": "lora", "options": {"augment": asked}})


@pytest.mark.parametrize(
    ("asked", "name", "said"),
    [
        (True, "augment", "a map"),
        ({}, "augment", "changes nothing"),
        ({"typoes": 0.1}, "typoes", "did you mean typos"),
        ({"typos": 1}, "typos", "below 1"),
        ({"typos": 0.1, "copies": 0}, "copies", "at least 1"),
        ({"synonyms": {"fox": []}}, "synonyms", "lists of words"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(asked: Any, name: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        recipe(asked)
    assert caught.value.name == name and caught.value.want

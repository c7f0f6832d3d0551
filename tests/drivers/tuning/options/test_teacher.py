"""The option `teacher` of a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.options.teacher import Teacher
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument


def recipe(asked: Any, **fields: Any) -> Recipe:
    options = {"teacher": asked, **fields.pop("options", {})}
    return Recipe.of({"method": "lora", **fields, "options": options})


def test_it_is_read_whole() -> None:
    asked = {"model": "big", "share": 1, "temperature": 1, "layers": [[-1, -1], (2, 4)], "hidden": 0.25}
    assert recipe(asked).teacher == Teacher("big", 1.0, 1.0, ((-1, -1), (2, 4)), 0.25)
    assert Recipe.of({"method": "lora"}).teacher is None


@pytest.mark.parametrize(
    ("asked", "name", "said"),
    [
        ("big", "teacher", "a map"),
        ({}, "teacher", "needs a model"),
        ({"model": 3}, "model", "text"),
        ({"model": "big", "share": 0}, "share", "above 0"),
        ({"model": "big", "share": 1.5}, "share", "above 0 to 1"),
        ({"model": "big", "temperature": 0}, "temperature", "above 0"),
        ({"model": "big", "layers": [[1]]}, "layers", "pairs of two layers"),
        ({"model": "big", "layers": [[1, True]]}, "layers", "pairs of two layers"),
        ({"model": "big", "layers": "last"}, "layers", "pairs of two layers"),
        ({"model": "big", "hiden": 1}, "hiden", "did you mean hidden"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(asked: Any, name: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        recipe(asked)
    assert caught.value.name == name and caught.value.want


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"objective": "preference"}, "which are none of preference"),
        ({"method": "prompt"}, "teacher and prompt do not go together"),
        ({"objective": "classification", "options": {"unlabelled": {"files": ["a"]}}}, "and unlabelled rows do not go"),
    ],
)
def test_what_it_does_not_go_with_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        recipe({"model": "big"}, **fields)

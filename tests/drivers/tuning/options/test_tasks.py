"""The options `tasks` and `mixing` of a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.options.tasks import Task
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument


def recipe(asked: Any, **options: Any) -> Recipe:
    return Recipe.of({"method": "lora", "options": {"tasks": asked, **options}})


def test_they_are_read_whole_in_their_order() -> None:
    asked = {"b": {"files": ["b*"], "objective": "preference", "weight": 2}, "a": {"files": ["a*"]}}
    made = recipe(asked, mixing=4)
    assert made.tasks == (Task("b", ("b*",), "preference", 2.0), Task("a", ("a*",))) and made.mixing == 4.0
    assert made.judged_as == "several"
    assert Recipe.of({"method": "lora"}).tasks == () and Recipe.of({"method": "lora"}).judged_as == "causal-lm"


@pytest.mark.parametrize(
    ("asked", "name", "said"),
    [
        (["a"], "tasks", "a map of names to maps"),
        ({}, "tasks", "a map of names to maps"),
        ({"a": "a*"}, "a", "a map"),
        ({"a": {}}, "files", "needs the option files"),
        ({"a b": {"files": ["a"]}}, "tasks", "no name of a task"),
        ({"a": {"files": ["a"], "objective": "poetry"}}, "objective", "poetry"),
        ({"a": {"files": ["a"], "weight": 0}}, "weight", "above 0"),
        ({"a": {"files": ["a"], "file": "a"}}, "file", "did you mean files"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(asked: Any, name: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        recipe(asked)
    assert caught.value.name == name and caught.value.want


@pytest.mark.parametrize(
    ("options", "name"),
    [({"earlier": {"files": ["o"]}}, "earlier"), ({"r_drop": 1.0}, "r_drop"), ({"mixing": 0}, "mixing"),
     ({"contrast": "triplet"}, "contrast")],
)  # fmt: skip
def test_what_is_for_one_task_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(BadArgument) as caught:
        recipe({"a": {"files": ["a"]}, "b": {"files": ["b"], "objective": "embedding"}}, **options)
    assert caught.value.name == name

"""The option `earlier` of a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.options.earlier import Earlier
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument


def recipe(asked: Any) -> Recipe:
    return Recipe.of({"method": "lora", "options": {"earlier": asked}})


def test_it_is_read_whole() -> None:
    asked = {"files": ["old*.jsonl"], "share": 0.25, "keep": 100, "ewc": 10, "rows": 8}
    assert recipe(asked).earlier == Earlier(("old*.jsonl",), 0.25, 100, 10.0, 8)
    assert Recipe.of({"method": "lora"}).earlier is None


@pytest.mark.parametrize(
    ("asked", "name", "said"),
    [
        ("old.jsonl", "earlier", "a map"),
        ({"share": 0.5}, "files", "needs the option files"),
        ({"files": []}, "files", "at least one"),
        ({"files": ["a"], "share": 1}, "share", "below 1"),
        ({"files": ["a"], "ewc": -1}, "ewc", "at least 0"),
        ({"files": ["a"], "rows": 0}, "rows", "at least 1"),
        ({"files": ["a"], "shares": 0.5}, "shares", "did you mean share"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(asked: Any, name: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        recipe(asked)
    assert caught.value.name == name and caught.value.want

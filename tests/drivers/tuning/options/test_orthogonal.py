"""The option `orthogonal` of a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.options.orthogonal import Orthogonal
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument


def recipe(asked: Any, method: str = "lora") -> Recipe:
    return Recipe.of({"method": method, "options": {"orthogonal": asked}})


def test_it_is_read_whole() -> None:
    assert recipe({"to": ["a", "b"], "weight": 2}).orthogonal == Orthogonal(("a", "b"), 2.0)
    assert Recipe.of({"method": "lora"}).orthogonal is None


@pytest.mark.parametrize(
    ("asked", "name", "said"),
    [
        (["a"], "orthogonal", "a map"),
        ({}, "to", "needs the option to"),
        ({"to": ["a"], "weight": 0}, "weight", "above 0"),
        ({"to": ["a"], "wait": 1}, "wait", "did you mean weight"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(asked: Any, name: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        recipe(asked)
    assert caught.value.name == name and caught.value.want


def test_it_is_for_methods_of_low_rank() -> None:
    with pytest.raises(BadArgument, match="which ia3 has none of; it is for lora, rslora, dora, qlora"):
        recipe({"to": ["a"]}, "ia3")

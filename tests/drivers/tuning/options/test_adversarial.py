"""The option `adversarial` of a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.options.adversarial import Adversarial
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument


def test_it_is_read_whole() -> None:
    assert recipe({"method": "pgd", "size": 2, "times": 4}).adversarial == Adversarial("pgd", 2.0, times=4)
    assert Recipe.of({"method": "lora"}).adversarial is None


def recipe(asked: Any) -> Recipe:
    return Recipe.of({"method": "lora", "options": {"adversarial": asked}})


@pytest.mark.parametrize(
    ("asked", "name", "said"),
    [
        ("fgm", "adversarial", "a map"),
        ({"method": "agd"}, "method", "fgm, pgd"),
        ({"size": 0}, "size", "above 0"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(asked: Any, name: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        recipe(asked)
    assert caught.value.name == name and caught.value.want

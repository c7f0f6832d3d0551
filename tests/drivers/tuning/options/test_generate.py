"""The option `generate` of a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.options.generate import MOST, Generate
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument


def recipe(asked: Any, objective: str = "causal-lm", **options: Any) -> Recipe:
    return Recipe.of({"method": "lora", "objective": objective, "options": {"generate": asked, **options}})


def test_it_is_true_or_a_map() -> None:
    assert recipe({"tokens": 8, "rows": 3}, "seq2seq").generate == Generate(8, 3)
    assert recipe(True).generate == recipe({}).generate == Generate(64, 50)
    assert recipe(False).generate is None and Recipe.of({"method": "lora"}).generate is None


@pytest.mark.parametrize(
    ("asked", "name", "said"),
    [
        (8, "generate", "expected true, or a map"),
        ({"tokens": 0}, "tokens", "at least 1"),
        ({"rows": 0}, "rows", "at least 1"),
        ({"rows": MOST + 1}, "rows", "at most 1000"),
        ({"token": 8}, "token", "did you mean tokens"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(asked: Any, name: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        recipe(asked)
    assert caught.value.name == name and caught.value.want


def test_it_is_for_what_writes_answers() -> None:
    with pytest.raises(BadArgument, match="none of classification; it is for causal-lm, seq2seq"):
        recipe(True, "classification")
    with pytest.raises(BadArgument, match="where an answer begins; it is for train_on answers"):
        recipe(True, train_on="all")

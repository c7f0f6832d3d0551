"""Recipes are checked whole before anything is done."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.words import METHODS, OBJECTIVES
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import TuneRecipe


def test_the_defaults_are_those_of_the_call() -> None:
    told = msgspec.to_builtins(TuneRecipe(method="lora"))
    assert Recipe.of(told) == Recipe.of({"method": "lora"}) == Recipe("lora")
    assert {name for name in told if name not in ("options", "search")} <= set(Recipe.__dataclass_fields__)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_a_learning_rate_of_its_own(method: str) -> None:
    assert Recipe.of({"method": method}).learning_rate == METHODS[method]
    assert Recipe.of({"method": method, "learning_rate": 0.5}).learning_rate == 0.5


def test_options_become_fields() -> None:
    options = {"accumulation": 4, "clip": 0, "labels": ["bad", "good"], "columns": {"text": "body"}, "long": "cut"}
    recipe = Recipe.of({"method": "full", "options": options, "seed": -3, "max_length": 64, "target_modules": ["q"]})
    assert (recipe.accumulation, recipe.clip, recipe.labels, recipe.long) == (4, 0.0, ("bad", "good"), "cut")
    assert recipe.columns == (("text", "body"),)
    assert (recipe.seed, recipe.max_length, recipe.target_modules) == (-3, 64, ("q",))


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"method": "lorra"}, "method", "'lorra'.*lora"),
        ({"method": None}, "method", "needs a method"),
        ({"objective": "poetry"}, "objective", "poetry.*causal-lm"),
        ({"rnak": 3}, "rnak", "did you mean rank"),
        ({"rank": 0}, "rank", "0.*at least 1"),
        ({"rank": True}, "rank", "integer"),
        ({"epochs": 0}, "epochs", "above 0"),
        ({"dropout": 1.0}, "dropout", "below 1"),
        ({"learning_rate": float("nan")}, "learning_rate", "nan"),
        ({"learning_rate": -1}, "learning_rate", "above 0"),
        ({"schedule": "zigzag"}, "schedule", "cosine"),
        ({"packing": 1}, "packing", "true or false"),
        ({"target_modules": "q_proj"}, "target_modules", "list of texts"),
        ({"eval_fraction": -0.1}, "eval_fraction", "at least 0"),
        ({"options": {"accumlation": 2}}, "accumlation", "did you mean accumulation"),
        ({"options": {"long": "squeeze"}}, "long", "cut"),
        ({"options": {"columns": {"text": 1}}}, "columns", "map of text"),
        ({"options": {"masked_share": 0}}, "masked_share", "above 0 and below 1"),
        ({"options": [1]}, "options", "a map"),
        ({"options": {"class_weights": "balanced"}}, "class_weights", "no meaning for the objective causal-lm"),
        ({"objective": "classification", "options": {"class_weights": "much"}}, "class_weights", "balanced, effective"),
        ({"options": {"early_stopping": 2}}, "early_stopping", "eval_fraction above 0"),
        ({"objective": "regression", "options": {"label_smoothing": 0.1}}, "label_smoothing", "regression"),
        ({"options": {"mixed_precision": "fp8"}}, "mixed_precision", "bf16"),
        ({"objective": "preference", "options": {"r_drop": 1}}, "r_drop", "which are none of preference"),
        ({"options": {"group": "town"}}, "group", "which is not causal-lm"),
        ({"options": {"contrast": "triplet"}}, "contrast", "no meaning for the objective causal-lm"),
    ],
)
def test_what_is_wrong_is_told_with_its_name_and_what_to_try(changes: dict[str, Any], name: str, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        Recipe.of({"method": "lora", **changes})
    assert caught.value.name == name and (caught.value.want or name == "method")


def test_every_objective_has_rows_that_teach_it() -> None:
    assert all(OBJECTIVES.values())

"""Options and recipes of models."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import msgspec
import pytest
from llmos.syscalls.types import LoadOptions, Quant, TransformRecipe, TuneRecipe

TOML = """
method = "lora"
rank = 16
target_modules = ["q_proj", "v_proj"]
learning_rate = 1e-4
[options]
note = "nightly"
"""


def test_a_recipe_is_the_same_as_dict_file_and_json() -> None:
    recipe = TuneRecipe(
        method="lora", rank=16, target_modules=["q_proj", "v_proj"], learning_rate=1e-4, options={"note": "nightly"}
    )
    assert msgspec.convert(tomllib.loads(TOML), TuneRecipe) == recipe
    assert msgspec.json.decode(json.dumps(tomllib.loads(TOML)), type=TuneRecipe) == recipe
    assert msgspec.convert(msgspec.to_builtins(recipe), TuneRecipe) == recipe


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Quant, {"width": 1}),
        (Quant, {"width": 9}),
        (Quant, {"byte_budget": -1}),
        (LoadOptions, {"max_context": 0}),
        (LoadOptions, {"keep_alive": -2}),
        (LoadOptions, {"quant": {"widht": 4}}),
        (TuneRecipe, {"method": "lora", "rank": 0}),
        (TuneRecipe, {"method": "lora", "dropout": 1}),
        (TuneRecipe, {"method": "lora", "learning_rate": 0}),
        (TuneRecipe, {}),
        (TransformRecipe, {"kind": "prune", "sparsity": 1.0}),
    ],
)
def test_values_out_of_range_are_refused(kind: type[Any], body: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, kind)


def test_a_model_stays_until_told_otherwise() -> None:
    options = LoadOptions()
    assert (options.keep_alive, options.pin, options.dry_run, options.dtype) == (-1, False, False, "auto")

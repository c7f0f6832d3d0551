"""The recipe that a body means; the routes are in `test_client` and `test_routes`."""

from __future__ import annotations

import msgspec
import pytest

from llmos.syscalls.types import TuneRecipe
from llmos.userland.gateway.openai.jobs import JobBody, recipe_of


def body(**fields: object) -> JobBody:
    return msgspec.convert({"model": "m", "training_file": "f", **fields}, JobBody)


def test_recipes() -> None:
    assert recipe_of(body()) == TuneRecipe(method="lora")
    numbers = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 2}
    wanted = TuneRecipe(method="lora", epochs=3.0, batch_size=4, learning_rate=4e-4, seed=5)
    assert recipe_of(body(hyperparameters=numbers, seed=5)) == wanted
    method = {"type": "supervised", "supervised": {"hyperparameters": {**numbers, "n_epochs": "auto"}}}
    assert recipe_of(body(method=method)).epochs == 1.0 and recipe_of(body(method=method)).batch_size == 4


def test_numbers_that_cannot_be() -> None:
    with pytest.raises(msgspec.ValidationError):
        recipe_of(body(hyperparameters={"batch_size": 0}))

"""Adapting models."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.spec import SYSCALLS, check

assert calls.__all__


def made(name: str, **arguments: Any) -> Any:
    return check(SYSCALLS[name], arguments)


def refused(name: str, argument: str, **arguments: Any) -> None:
    with pytest.raises(BadArgument) as raised:
        made(name, **arguments)
    assert raised.value.name == argument


def test_a_recipe_is_checked_in_depth() -> None:
    call = made("tune", model=1, recipe={"method": "lora"}, data="/data/d.jsonl", out="/models/mine")
    assert (call.recipe.rank, call.recipe.learning_rate) == (8, 2e-4)
    refused("tune", "recipe.rank", model=1, recipe={"method": "lora", "rank": 0}, data="d", out="o")


def test_tuning_reads_and_runs_the_model() -> None:
    assert SYSCALLS["tune"].handles[0].rights == ("read", "run")

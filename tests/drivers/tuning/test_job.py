"""What belongs to a job under way: whose its checkpoints are, and what is told of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from slow_cases import slow_but
from tuning_runs import Make

from llmos.drivers.tuning.job import Running, identity_of

ALL_AIDS = {"mixed_precision": "bf16", "r_drop": 0.5, "adversarial": {}, "gradient_checkpointing": True}


def test_another_recipe_data_or_base_is_another_run(make: Make) -> None:
    mine = identity_of(make())
    assert identity_of(make()) == mine
    for changed, name in (({"rank": 4}, "recipe"), ({"text": "e f"}, "data"), ({"version": "v2"}, "base")):
        other = identity_of(make(**changed))
        assert {key for key in mine if other[key] != mine[key]} == {name}


def test_what_happened_is_told_once(make: Make) -> None:
    prepared = make()
    running = Running(replace(prepared))
    assert running.told() == [] and running.values == {} and running.manifest == {}
    running.work(lambda: None)
    told = running.told()
    assert [each.stage for each in told].count("train") == 2 and running.told() == []
    assert running.manifest["steps"] == 2 and running.values["tokens"] > 0
    assert sorted(path.name for path in prepared.job.folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("aid", slow_but([ALL_AIDS], [
    {"mixed_precision": "bf16"}, {"r_drop": 0.5}, {"adversarial": {"method": "pgd"}}, ALL_AIDS,
]))  # fmt: skip
def test_aids_work_on_the_weights_that_serve(make: Make, aid: dict[str, Any]) -> None:
    plain, aided = make(dropout=0.1), make(dropout=0.1, options=aid)
    less = "mixed_precision" in aid
    bytes_of = [each.plan.facts["bytes"]["activations"] for each in (plain, aided)]
    assert less or bytes_of[1] >= bytes_of[0]
    running = Running(aided)
    running.work(lambda: None)
    told = [each.values["loss"] for each in running.told() if each.stage == "train"]
    assert len(told) == 2 and all(map(math.isfinite, told))

"""An adapter that the engine cannot serve is refused when it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_folders import Make, weights_of
from tiny_models import silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import loader
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.lora.trial import check_runs
from llmos.drivers.engine.lora.weights import LoraPair, LoraWeights
from llmos.drivers.engine.shared import SharedModule
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadModel, NotSupported


@pytest.fixture
def fresh(llama: Path, make: Make, ops: OpTable) -> Callable[..., tuple[Bundle, SharedModule]]:
    """A loaded llama with an adapter called `a`, after a change to the model."""

    def load(change: Callable[[Any], None] = lambda module: None, grow: float = 1.0) -> tuple[Bundle, SharedModule]:
        bundle = loader.load(source_of(llama), LoadSettings(), silent)
        change(bundle.module)
        shared, weights = SharedModule(bundle.module), weights_of(make())
        pairs = {path: replace(pair, scale=grow) for path, pair in weights.pairs.items()}
        shared.adapters.add("a", replace(weights, pairs=pairs), ops, "a")
        return bundle, shared

    return load


def test_one_that_runs_passes_and_leaves_the_base(fresh: Callable[..., tuple[Bundle, SharedModule]]) -> None:
    bundle, shared = fresh()
    check_runs(bundle, shared, "a", "a")
    assert not shared.adapters.step.active


class Routed(torch.nn.Module):
    """An expert that only some tokens go to."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.expert = torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(x).clone()
        answer[:, :2] += self.expert(x[:, :2])
        return answer


def route(module: Any) -> None:
    module.model.layers[0].mlp = Routed(module.model.layers[0].mlp)


def test_layers_that_see_other_tokens_than_the_step_has_are_refused(
    fresh: Callable[..., tuple[Bundle, SharedModule]], ops: OpTable
) -> None:
    bundle, shared = fresh(route)
    pair = LoraPair(torch.randn(2, 64), torch.randn(64, 2))
    shared.adapters.add("routed", LoraWeights({"model.layers.0.mlp.expert": pair}, "f"), ops, "routed")
    with pytest.raises(NotSupported, match="given 2 tokens in a step of 5"):
        check_runs(bundle, shared, "routed", "routed")
    assert not shared.adapters.step.active
    shared.adapters.drop("routed")
    check_runs(bundle, shared, "a", "a")


def test_answers_that_are_not_finite_are_refused(fresh: Callable[..., tuple[Bundle, SharedModule]]) -> None:
    bundle, shared = fresh(grow=3e38)
    with pytest.raises(BadModel, match="not finite"):
        check_runs(bundle, shared, "a", "a")

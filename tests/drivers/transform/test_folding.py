"""Factors that move from inputs of linear layers into what comes before them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import config_of, random_module
from torch import nn

from llmos.drivers.transform.calibration import Layer, walk
from llmos.drivers.transform.folding import fold, sources

PIECES = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(0))
FACTORS = torch.linspace(0.5, 2, 64)


def groups(layer: Layer) -> list[tuple[str, ...]]:
    names = [f"{layer.path}.{name}" for name, part in layer.module.named_modules() if isinstance(part, nn.Linear)]
    return [each.names for each in layer.arrived(names)]


@pytest.mark.parametrize(("name", "count"), [("llama", 3), ("gemma2", 3), ("gpt_neox", 2)])
def test_what_a_model_answers_stays(name: str, count: int) -> None:
    module = random_module(config_of(name)).eval()
    with torch.inference_mode():
        before = module(PIECES, use_cache=False).logits
    folded: list[str] = []

    def visit(layer: Layer) -> None:
        for names, source in sources(layer, groups(layer)).items():
            weight = layer.module.get_submodule(names[0].removeprefix(f"{layer.path}.")).weight.clone()
            size = weight.shape[1]
            factors = FACTORS.repeat(2)[:size]
            real = fold(layer, source, names, factors)
            assert real is not None
            torch.testing.assert_close(real, factors, rtol=1e-2, atol=1e-2)
            folded.append(source.path)
            now = layer.module.get_submodule(names[0].removeprefix(f"{layer.path}.")).weight
            torch.testing.assert_close(now, weight * real)

    walk(module, PIECES, visit)
    assert len(folded) == count * 2
    with torch.inference_mode():
        torch.testing.assert_close(module(PIECES, use_cache=False).logits, before, rtol=1e-3, atol=1e-3)


def test_a_layer_that_would_answer_otherwise_is_put_back() -> None:
    """Somebody else reads the norm too."""
    module = random_module(config_of("llama")).eval()
    first: Any = module.model.layers[0]
    forward = first.mlp.forward
    first.mlp.forward = lambda x: forward(x) + 30 * x
    before = copy.deepcopy(module.state_dict())
    refused: list[bool] = []

    def visit(layer: Layer) -> None:
        if layer.module is first:
            for names, source in sources(layer, groups(layer)).items():
                if names[0].endswith("gate_proj"):
                    refused.append(fold(layer, source, names, FACTORS) is None)

    walk(module, PIECES, visit)
    assert refused == [True]
    for name, part in module.state_dict().items():
        assert torch.equal(part, before[name])

"""What arrives at linear layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import config_of, random_module

from llmos.drivers.transform.calibration import Arrived, Layer, layers_of, walk

PIECES = torch.randint(3, 250, (5, 24), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_neox"])
def test_layers_see_what_they_see_in_a_plain_run(name: str) -> None:
    module = random_module(config_of(name)).eval()
    found: list[str] = []
    with torch.inference_mode():
        states = module.base_model(PIECES, use_cache=False, output_hidden_states=True).hidden_states

    def visit(layer: Layer) -> None:
        found.append(layer.path)
        answers = [each[0] if isinstance(each, tuple) else each for each in layer.run()]
        if len(found) < len(layers_of(module)):  # the last state is behind the last norm
            torch.testing.assert_close(torch.cat(answers), states[len(found)], rtol=1e-4, atol=1e-4)

    walk(module, PIECES, visit)
    assert found == [path for path, _ in layers_of(module)]
    assert all("forward" not in vars(layer) for _, layer in layers_of(module)), "the model is as it was"


def test_inputs_are_summed_once_for_layers_that_share_them() -> None:
    module = random_module(config_of("llama")).eval()
    seen: dict[tuple[str, ...], Arrived] = {}
    inputs: list[torch.Tensor] = []
    own = module.model.layers[1].mlp.up_proj
    handle = own.register_forward_pre_hook(lambda _module, given: inputs.append(given[0]))
    with torch.inference_mode():
        module(PIECES, use_cache=False)
    handle.remove()
    names = [f"model.layers.1.mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj")]

    def visit(layer: Layer) -> None:
        seen.update({each.names: each for each in layer.arrived(names_in(layer, names))})

    walk(module, PIECES, visit)
    assert set(seen) == {tuple(names[:2]), (names[2],)}
    arrived, x = seen[tuple(names[:2])], inputs[0].flatten(0, 1)
    torch.testing.assert_close(arrived.hessian, x.T @ x, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(arrived.largest, x.abs().amax(dim=0))
    torch.testing.assert_close(arrived.mean, x.abs().mean(dim=0))
    arrived.divide(torch.full((64,), 2.0))
    torch.testing.assert_close(arrived.hessian, x.T @ x / 4, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(arrived.mean, x.abs().mean(dim=0) / 2)


def names_in(layer: Layer, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(f"{layer.path}.")]


def test_a_layer_that_is_changed_answers_changed() -> None:
    module = random_module(config_of("llama")).eval()
    states: list[Any] = []

    def visit(layer: Layer) -> None:
        states.append(torch.cat(list(layer.run())))
        for part in layer.module.parameters():
            part.data = torch.zeros_like(part)

    walk(module, PIECES, visit)
    embedded = module.model.embed_tokens(PIECES)
    module = random_module(config_of("llama")).eval()
    with torch.inference_mode():
        positions = module.model.rotary_emb(embedded, torch.arange(24)[None])
        alone = module.model.layers[1](embedded, position_embeddings=positions)
    torch.testing.assert_close(states[1], alone, rtol=1e-4, atol=1e-4)

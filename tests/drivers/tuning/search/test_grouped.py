"""Layers of several trials in one: each does to its rows what it does alone, and no gradient leaks to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from llmos.drivers.tuning.search.grouped import Each, Grouped, Pass, plain

IN, OUT, TOKENS = 12, 20, 5


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(IN, OUT).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def layer(seed: int, rank: int, alpha: float = 8.0, dropout: float = 0.0, **more: Any) -> Any:
    """A layer of PEFT that is not at its beginning."""
    settings = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=["layer"], **more)
    made: Any = peft.get_peft_model(Tiny(), settings)
    torch.manual_seed(seed)
    nn.init.normal_(made.base_model.model.layer.lora_B["default"].weight)
    nn.init.normal_(made.base_model.model.layer.lora_A["default"].weight)
    return made.base_model.model.layer


def of(layers: Sequence[Any], rows: Sequence[int]) -> Grouped:
    chance = [torch.Generator().manual_seed(number) for number in range(len(layers))]
    return Grouped(Tiny().layer, Pass(rows, [TOKENS] * len(rows), {"here": list(layers)}, chance), "here")


def gradients(layers: Sequence[Any]) -> list[Tensor]:
    weights = [part["default"].weight for each in layers for part in (each.lora_A, each.lora_B)]
    found = [torch.zeros(()) if weight.grad is None else weight.grad.clone() for weight in weights]
    for weight in weights:
        weight.grad = None
    return found


@pytest.mark.parametrize("rows", [(2, 2, 2), (2, 1, 3)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_rows_have_the_answers_and_gradients_of_their_own_layer(rows: tuple[int, ...], dropout: float) -> None:
    layers = [layer(1, 4, dropout=dropout), layer(2, 2, alpha=3.0), layer(3, 8, dropout=dropout / 2)]
    x = torch.randn(sum(rows), TOKENS, IN, requires_grad=True)
    weights = torch.randn(sum(rows), TOKENS, OUT)
    made = of(layers, rows)(x)
    (made * weights).sum().backward()
    mine, back = gradients(layers), x.grad
    assert back is not None
    x.grad = None
    parts = []
    for number, (each, part) in enumerate(zip(layers, x.split(list(rows)), strict=True)):
        torch.manual_seed(number)
        parts.append(each(part))
    alone = torch.cat(parts)
    (alone * weights).sum().backward()
    torch.testing.assert_close(made, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine, gradients(layers), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(back, x.grad, rtol=1e-5, atol=1e-5)


def test_what_is_filled_up_draws_no_numbers() -> None:
    """A trial of shorter rows than the others has the noise that it has alone."""
    layers = [layer(1, 4, dropout=0.3), layer(2, 4, dropout=0.3)]
    grouped, x = of(layers, (1, 1)), torch.randn(2, TOKENS, IN)
    grouped._under.lengths = (TOKENS, 3)
    torch.manual_seed(1)
    alone = layers[1](x[1:, :3])
    torch.testing.assert_close(grouped(x)[1:, :3], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [(2, 2), (1, 2)])
def test_what_one_trial_loses_moves_no_other(rows: tuple[int, ...]) -> None:
    layers = [layer(1, 4), layer(2, 2)]
    made = of(layers, rows)(torch.randn(sum(rows), TOKENS, IN))
    made[: rows[0]].pow(2).sum().backward()
    found = gradients(layers)
    assert all(bool(each.any()) for each in found[:2]) and not any(bool(each.any()) for each in found[2:])


def test_in_evaluation_nothing_drops_out() -> None:
    layers = [layer(1, 4, dropout=0.5), layer(2, 4, dropout=0.5)]
    made = of(layers, (1, 1)).eval()
    x = torch.randn(2, TOKENS, IN)
    wanted = torch.cat([each.eval()(part) for each, part in zip(layers, x.split(1), strict=True)])
    torch.testing.assert_close(made(x), wanted, rtol=1e-5, atol=1e-5)


def test_other_layers_do_what_they_do(rows: tuple[int, ...] = (1, 2)) -> None:
    layers = [nn.Linear(IN, 3), nn.Linear(IN, 3)]
    x = torch.randn(3, IN)
    made = Each(Pass(rows, layers={"head": layers}), "head")(x)
    assert torch.equal(made, torch.cat([layers[0](x[:1]), layers[1](x[1:])]))


def test_which_layers_are_plain() -> None:
    assert plain(layer(1, 4)) and plain(layer(1, 4, use_rslora=True))
    assert not any(plain(each) for each in (layer(1, 4, use_dora=True), layer(1, 4, lora_bias=True), nn.Linear(1, 1)))

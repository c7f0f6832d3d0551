"""Linear layers that read the same input: one product, and the same answers however they are called."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llmos.drivers.engine.surgery.merged import MergedLinear, merge


class Attention(nn.Module):
    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, size, bias=bias) for size in (6, 4, 2))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", ["qkv", "kvq", "vq", "k", "qqk", "qkk"])
def test_the_answers_are_those_of_the_layers_in_any_order(x: torch.Tensor, bias: bool, order: str) -> None:
    plain, merged = Attention(bias), Attention(bias)
    assert merge(merged)
    for letter in order:
        name = f"{letter}_proj"
        torch.testing.assert_close(getattr(merged, name)(x), getattr(plain, name)(x))


def test_followers_are_not_fooled_by_another_input(x: torch.Tensor) -> None:
    plain, merged = Attention(), Attention()
    merge(merged)
    other = x + 1
    merged.q_proj(x)
    torch.testing.assert_close(merged.k_proj(other), plain.k_proj(other))
    torch.testing.assert_close(merged.k_proj(x), plain.k_proj(x))


def test_followers_only_take_what_the_lead_computed(x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = Attention()
    merge(merged)
    merged.q_proj(x)
    monkeypatch.setattr(F, "linear", None)
    merged.k_proj(x)
    merged.v_proj(x)


def test_nothing_is_held_once_all_have_taken_theirs(x: torch.Tensor) -> None:
    merged = Attention()
    merge(merged)
    for name in ("q_proj", "k_proj", "v_proj"):
        getattr(merged, name)(x)
    assert isinstance(merged.q_proj, MergedLinear)
    assert merged.q_proj._product._input is None


def test_the_weights_are_kept_once_and_can_be_read_by_name() -> None:
    plain, merged = Attention(), Attention()
    merge(merged)
    storages = {part.weight.untyped_storage().data_ptr() for part in merged.children()}
    assert len(storages) == 1
    for name in ("q_proj", "k_proj", "v_proj"):
        assert torch.equal(getattr(merged, name).weight, getattr(plain, name).weight)
        assert getattr(merged, name).out_features == getattr(plain, name).out_features


def test_a_gradient_reaches_the_input(x: torch.Tensor) -> None:
    plain, merged = Attention(), Attention()
    merge(merged)
    grads = []
    for module in (plain, merged):
        given = x.clone().requires_grad_()
        (module.q_proj(given).sum() + 2 * module.v_proj(given).sum()).backward()
        grads.append(given.grad)
    torch.testing.assert_close(*grads)


def test_layers_that_are_not_alike_stay_as_they_are() -> None:
    one, two, three = Attention(), Attention(), Attention()
    one.k_proj = nn.Linear(9, 4)
    two.v_proj = nn.Linear(8, 2, bias=False)
    three.v_proj = nn.Linear(8, 2, dtype=torch.bfloat16)
    assert not merge(one) and not merge(two) and not merge(three)
    assert type(one.q_proj) is type(two.q_proj) is type(three.q_proj) is nn.Linear

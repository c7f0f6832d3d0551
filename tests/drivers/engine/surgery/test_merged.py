"""Linear layers that read the same input: one product, and the same answers however they are called."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llmos.drivers.engine.surgery.merged import MergedLinear, SingleLinear, merge, pack
from llmos.drivers.ops.linear import PlainLinear


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
    assert merge(merged, PlainLinear)
    for letter in order:
        name = f"{letter}_proj"
        torch.testing.assert_close(getattr(merged, name)(x), getattr(plain, name)(x))


def test_followers_are_not_fooled_by_another_input(x: torch.Tensor) -> None:
    plain, merged = Attention(), Attention()
    merge(merged, PlainLinear)
    other = x + 1
    merged.q_proj(x)
    torch.testing.assert_close(merged.k_proj(other), plain.k_proj(other))
    torch.testing.assert_close(merged.k_proj(x), plain.k_proj(x))


def test_followers_only_take_what_the_lead_computed(x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = Attention()
    merge(merged, PlainLinear)
    merged.q_proj(x)
    monkeypatch.setattr(F, "linear", None)
    merged.k_proj(x)
    merged.v_proj(x)


def test_nothing_is_held_once_all_have_taken_theirs(x: torch.Tensor) -> None:
    merged = Attention()
    merge(merged, PlainLinear)
    for name in ("q_proj", "k_proj", "v_proj"):
        getattr(merged, name)(x)
    assert isinstance(merged.q_proj, MergedLinear)
    assert merged.q_proj.product._input is None


def test_the_weights_are_kept_once_and_can_be_read_by_name() -> None:
    plain, merged = Attention(), Attention()
    merge(merged, PlainLinear)
    assert sum(buffer.nbytes for buffer in merged.buffers()) == sum(p.nbytes for p in plain.parameters())
    for name in ("q_proj", "k_proj", "v_proj"):
        assert torch.equal(getattr(merged, name).weight, getattr(plain, name).weight)
        assert getattr(merged, name).out_features == getattr(plain, name).out_features


def test_a_gradient_reaches_the_input(x: torch.Tensor) -> None:
    plain, merged = Attention(), Attention()
    merge(merged, PlainLinear)
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
    assert not any(merge(module, PlainLinear) for module in (one, two, three))
    assert type(one.q_proj) is type(two.q_proj) is type(three.q_proj) is nn.Linear


@pytest.mark.parametrize("bias", [True, False])
def test_single_layers_are_packed_and_answer_the_same(x: torch.Tensor, bias: bool) -> None:
    plain, packed = Attention(bias), Attention(bias)
    assert pack(packed, PlainLinear) == 3 and pack(packed, PlainLinear) == 0
    for name in ("q_proj", "k_proj", "v_proj"):
        one, other = getattr(plain, name), getattr(packed, name)
        assert isinstance(other, SingleLinear) and torch.equal(other.weight, one.weight)
        torch.testing.assert_close(other(x), one(x))
        assert (other.bias is None) == (one.bias is None)

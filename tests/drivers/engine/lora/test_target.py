"""A layer with adapters answers as the layer does, plus what each token's adapter adds; siblings share a product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llmos.drivers.engine.lora.layout import BANK_SLOTS, BASE, AdapterStep, Group, Layout
from llmos.drivers.engine.lora.target import Bank, LoraTarget, MergedTarget, SharedInput
from llmos.drivers.engine.lora.weights import LoraPair
from llmos.drivers.engine.surgery.merged import merge
from llmos.drivers.ops.linear import PlainLinear
from llmos.drivers.ops.reference_lora import lora_expand, lora_shrink

INS, OUTS, TOKENS = 6, (5, 3), 7
GROUPS = (Group(0, 1, 3), Group(2, 3, 6))


class Counted:
    """`lora_shrink`, counted."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *given: Any) -> Tensor:
        self.calls += 1
        return lora_shrink(*given)


def pair(outs: int, rank: int = 2) -> LoraPair:
    return LoraPair(torch.randn(rank, INS), torch.randn(outs, rank))


class Siblings:
    """Two members with adapters in places 0 and 2."""

    def __init__(self) -> None:
        self.step, self.shrink = AdapterStep(), Counted()
        self.shared = SharedInput(self.step, self.shrink, lora_expand)
        self.shared.members = 2
        bank = self.shared.banks[0] = Bank(2)
        self.pairs = {place: {0: pair(OUTS[0]), 1: pair(OUTS[1])} for place in (0, 2)}
        for place, pairs in self.pairs.items():
            bank.set(place, pairs, 3)

    def begin(self, groups: Sequence[Group] = GROUPS) -> None:
        self.step.set_layouts(Layout(TOKENS, tuple(groups)), Layout(0))

    def wanted(self, member: int, x: Tensor, y: Tensor, groups: Sequence[Group] = GROUPS) -> Tensor:
        flat, answer = x.reshape(-1, INS), y.clone().view(-1, OUTS[member])
        for slot, start, end in groups:
            found = self.pairs[slot][member]
            answer[start:end] += flat[start:end] @ found.a.t() @ found.b.t()
        return answer.view_as(y)


@pytest.mark.parametrize("shape", [(1, TOKENS), (TOKENS,), (TOKENS, 1)])
@pytest.mark.parametrize("make", [nn.Linear, lambda ins, outs: Conv1D(outs, ins)])
def test_each_token_gets_its_own_adapter(make: Any, shape: tuple[int, ...]) -> None:
    siblings, base = Siblings(), make(INS, OUTS[0])
    target, x = LoraTarget(base, siblings.shared, 0), torch.randn(*shape, INS)
    with torch.inference_mode():
        assert torch.equal(target(x), base(x))
        siblings.begin()
        torch.testing.assert_close(target(x), siblings.wanted(0, x, base(x)))
        assert not torch.allclose(target(x), base(x))
        siblings.step.clear()
        assert torch.equal(target(x), base(x))


def test_siblings_share_the_product_of_the_very_same_input() -> None:
    siblings = Siblings()
    bases = [nn.Linear(INS, outs) for outs in OUTS]
    targets = [LoraTarget(base, siblings.shared, at) for at, base in enumerate(bases)]
    x, other = torch.randn(1, TOKENS, INS), torch.randn(1, TOKENS, INS)
    with torch.inference_mode():
        siblings.begin()
        for at in (1, 0):
            torch.testing.assert_close(targets[at](x), siblings.wanted(at, x, bases[at](x)))
        assert siblings.shrink.calls == 1
        torch.testing.assert_close(targets[0](x), siblings.wanted(0, x, bases[0](x)))
        torch.testing.assert_close(targets[1](other), siblings.wanted(1, other, bases[1](other)))
        assert siblings.shrink.calls == 3


def test_nothing_of_a_step_is_used_in_the_next() -> None:
    """The same tensor may hold other tokens then."""
    siblings, x = Siblings(), torch.randn(1, TOKENS, INS)
    bases = [nn.Linear(INS, outs) for outs in OUTS]
    targets = [LoraTarget(base, siblings.shared, at) for at, base in enumerate(bases)]
    with torch.inference_mode():
        siblings.begin()
        targets[0](x)
        x.normal_()
        siblings.begin(GROUPS[:1])
        torch.testing.assert_close(targets[1](x), siblings.wanted(1, x, bases[1](x), GROUPS[:1]))


def test_parts_of_a_product_have_their_adapters_in_the_whole_too() -> None:
    siblings, parent = Siblings(), nn.Module()
    linears = [nn.Linear(INS, outs) for outs in OUTS]
    parent.gate_proj, parent.up_proj = linears
    assert merge(parent, PlainLinear) == 1
    gate, up = (
        MergedTarget(base, siblings.shared, at, OUTS) for at, base in enumerate((parent.gate_proj, parent.up_proj))
    )
    x = torch.randn(1, TOKENS, INS)
    with torch.inference_mode():
        plain = torch.cat([linear(x) for linear in linears], -1)
        torch.testing.assert_close(gate.whole(x), plain)
        siblings.begin()
        wanted = [siblings.wanted(at, x, linear(x)) for at, linear in enumerate(linears)]
        torch.testing.assert_close(gate.whole(x), torch.cat(wanted, -1))
        torch.testing.assert_close([gate(x), up(x)], wanted)


def test_slots_on_the_device_are_the_same_adapters() -> None:
    """In any order of rows, and read anew when the tensor has changed."""
    siblings, base, ids = Siblings(), nn.Linear(INS, OUTS[0]), torch.full((TOKENS,), BASE, dtype=torch.int32)
    target, x = LoraTarget(base, siblings.shared, 0), torch.randn(1, TOKENS, INS)
    with torch.inference_mode():
        siblings.step.set_slots(ids, 2)
        torch.testing.assert_close(target(x), base(x))
        groups = (Group(2, 0, 1), Group(0, 1, 3), Group(2, 5, 6), Group(BANK_SLOTS, 6, 7))
        for slot, start, end in groups:
            ids[start:end] = slot
        siblings.step.set_slots(ids, 2)
        torch.testing.assert_close(target(x), siblings.wanted(0, x, base(x), groups[:-1]))


@pytest.mark.parametrize("changed", [(0,), (1,), (0, 1)])
def test_the_whole_product_is_one_call_for_all_slices(changed: tuple[int, ...]) -> None:
    """Also when adapters change only some of its parts."""
    siblings, widths, calls = Siblings(), (4, *OUTS), []
    bank = siblings.shared.banks[0] = Bank(2)
    members = [member + 1 for member in changed]
    pairs = {member: pair(widths[member]) for member in members}
    bank.set(0, pairs, 3)

    def expand(*given: Any) -> None:
        calls.append(given[-1])
        lora_expand(*given)

    shared = SharedInput(siblings.step, lora_shrink, expand)
    shared.members, shared.banks = 3, siblings.shared.banks
    parent, x = nn.Module(), torch.randn(1, TOKENS, INS)
    parent.q_proj, parent.k_proj, parent.v_proj = (nn.Linear(INS, width) for width in widths)
    linears = [parent.q_proj, parent.k_proj, parent.v_proj]
    assert merge(parent, PlainLinear) == 1
    with torch.inference_mode():
        wanted = torch.cat([linear(x) for linear in linears], -1)
        for member, found in pairs.items():
            start = sum(widths[:member])
            wanted[:, :, start : start + widths[member]] += x @ found.a.t() @ found.b.t()
        siblings.step.set_slots(torch.zeros(TOKENS, dtype=torch.int32), 1)
        torch.testing.assert_close(MergedTarget(parent.q_proj, shared, 0, widths).whole(x), wanted)
    assert calls == [[(sum(widths[:member]), widths[member]) for member in members]]


def test_whatever_else_is_asked_of_a_target_is_the_layers() -> None:
    base = nn.Linear(INS, 5)
    target = LoraTarget(base, Siblings().shared, 0)
    assert target.weight is base.weight and (target.in_features, target.out_features) == (INS, 5)
    with pytest.raises(AttributeError):
        getattr(target, "nothing")  # noqa: B009 (the point)


def test_a_bank_holds_what_its_places_need() -> None:
    bank = Bank(4)
    first, second = {0: pair(5, 4)}, {0: pair(5, 3), 1: pair(3, 1)}
    bank.set(3, first, 4)
    assert bank.stacked_bytes() == 4 * 4 * (4 * INS + 4 * 5)
    bank.set(1, second, 4)
    bank.set(3, {}, 2)
    assert bank.stacked_bytes() == 4 * 2 * (2 * 4 * INS + 4 * 5 + 4 * 3)
    for member, given in second.items():
        assert torch.equal(bank.pairs[1][member].a, given.a) and torch.equal(bank.pairs[1][member].b, given.b)
    bank.set(7, {}, 8)
    assert bank.a.shape[0] == 8 and not bank.a[2:].any()
    bank.set(1, {}, 8)
    assert (bank.pairs, bank.parts, bank.stacked_bytes()) == ({}, {}, 0)

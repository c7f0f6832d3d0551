"""What is repeated gives what was asked for, whatever addresses its inputs have."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from llmos.drivers.ops.cpu import replay as module
from llmos.drivers.ops.cpu.layers import Layers
from llmos.drivers.ops.cpu.linear import NativeLinear
from llmos.drivers.ops.cpu.native import Native
from llmos.drivers.ops.cpu.replay import NativeReplay
from llmos.drivers.ops.replay import Inputs, Variant

FIRST = Variant(0, None)


class Block:
    """Norm, product, turn, gate, product, sum of inputs x [1, T, 64], within a larger tensor, and angles [1, T, 16]."""

    def __init__(self, native: Native, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        self.wide, self.narrow = (
            NativeLinear(native, [torch.randn(*size, generator=generator).to(dtype)], None)
            for size in ((96, 64), (64, 48))
        )
        self.ops, self.replay, self.dtype = Layers(native), NativeReplay(native), dtype
        self.weight = torch.ones(64, dtype=dtype)
        self.asked = 0

    def inputs(self, tokens: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(1, tokens + 1, 64)[:, 1:].to(self.dtype)
        return x, torch.randn(1, tokens, 16).to(self.dtype)

    def ask(self, x: Tensor, angles: Tensor) -> Tensor:
        self.asked += 1
        normed = self.ops.rms_norm(x, self.weight, 1e-5)
        both = self.wide(normed)
        heads = both[0].view(-1, 3, 32)
        self.ops.rope(heads[:, :2], heads[:, 2:], angles[0], angles[0])
        return self.ops.add(self.narrow(self.ops.gated("silu_mul")(both)), x)

    def __call__(self, x: Tensor, angles: Tensor, variant: Variant | None = FIRST) -> Tensor:
        return self.replay(x, Inputs([angles]), variant, lambda: self.ask(x, angles))


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def block(request: pytest.FixtureRequest, native: Native) -> Block:
    return Block(native, request.param)


def test_repeats_are_the_same_bits_for_other_inputs(block: Block, threads: int) -> None:
    given = [block.inputs(tokens) for tokens in (1, 3, 1, 40, 3, 1, 40, 500)]
    answers = [block(*each) for each in given]
    assert block.asked == 4
    for answer, each in zip(answers, given, strict=True):
        assert torch.equal(answer, block.ask(*each))


def test_inputs_of_other_strides_are_asked_for_anew(block: Block) -> None:
    x, angles = block.inputs(4)
    spread = torch.randn(1, 4, 128).to(block.dtype)[..., :64]
    assert torch.equal(block(x, angles), block.ask(x, angles))
    assert torch.equal(block(spread, angles), block.ask(spread, angles))
    assert torch.equal(block(x, angles), block.ask(x, angles))


def test_answers_are_memory_of_their_own(block: Block) -> None:
    one, other = block.inputs(5), block.inputs(5)
    block(*one)
    first, second = block(*one), block(*other)
    assert torch.equal(first, block.ask(*one)) and torch.equal(second, block.ask(*other))


@pytest.mark.parametrize("variant", [None, Variant(0, "other")])
def test_another_variant_is_asked_for_anew(block: Block, variant: Variant | None) -> None:
    inputs = block.inputs(2)
    block(*inputs)
    block(*inputs, variant)
    assert block.asked == 2
    block(*inputs, variant)
    assert block.asked == (3 if variant is None else 2)


def test_a_new_epoch_forgets_and_lets_go(block: Block) -> None:
    inputs = block.inputs(2)
    block(*inputs)
    kept = weakref.ref(block.weight)
    block.weight = torch.full((64,), 2.0, dtype=block.dtype)
    gc.collect()
    assert kept() is not None, "a recording needs it"
    assert torch.equal(block(*inputs, Variant(1, None)), block.ask(*inputs))
    gc.collect()
    assert kept() is None


def test_it_remembers_so_many_shapes_and_long_calls_not_at_all(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    monkeypatch.setattr(module, "MOST_ROWS", 4)
    for tokens, asked in ((1, 1), (2, 2), (3, 3), (3, 3), (2, 3), (1, 4), (5, 5), (5, 6)):
        inputs = block.inputs(tokens)
        answer = block(*inputs)
        assert block.asked == asked
        assert torch.equal(answer, block.ask(*inputs))
        block.asked -= 1


def test_a_larger_arena_leaves_the_smaller_to_who_has_it(native: Native) -> None:
    made = []
    for tokens in (1, 300):
        block = Block(native, torch.float32)
        inputs = block.inputs(tokens)
        block(*inputs)
        made.append((block, inputs))
    for block, inputs in made:
        assert torch.equal(block(*inputs), block.ask(*inputs))

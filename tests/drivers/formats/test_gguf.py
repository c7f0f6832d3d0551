"""GGUF: every block means what the package `gguf` makes of it, to the last bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gguf as package
import numpy as np
import pytest
import torch
from llmos.drivers.formats import gguf
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme
from llmos.syscalls.errors import NotSupported

OUTS, INS = 6, 512
KINDS = {
    "Q4_0": Scheme(4, 32), "Q4_1": Scheme(4, 32, shift=True), "Q5_0": Scheme(8, 32), "Q5_1": Scheme(8, 32, shift=True),
    "Q8_0": Scheme(8, 32), "Q4_K": Scheme(4, 32, shift=True), "Q5_K": Scheme(8, 32, shift=True),
}  # fmt: skip
SCALES_AT = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q2_K": (80, 82)}


def drawn(kind: str, seed: int = 0) -> Any:
    """A tensor of random bytes, whose scales are numbers."""
    known = package.GGMLQuantizationType[kind]
    size, length = package.GGML_QUANT_SIZES[known]
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (OUTS, INS // size, length), np.uint8)
    for at in SCALES_AT.get(kind, (0,)):
        scale = (random.standard_normal((OUTS, INS // size, 1)) * 0.05).astype(np.float16)
        blocks[..., at : at + 2] = scale.view(np.uint8)
    return SimpleNamespace(name="blk.0.x.weight", tensor_type=known, data=blocks.reshape(OUTS, -1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_blocks_keep_their_numbers(kind: str, seed: int) -> None:
    tensor = drawn(kind, seed)
    weight = gguf.read(tensor, None, keep=True)
    assert isinstance(weight, QuantizedWeight) and weight.scheme == KINDS[kind] and weight.ins == INS
    weight.check(kind)
    wanted = torch.from_numpy(package.dequantize(tensor.data, tensor.tensor_type).copy())
    assert torch.equal(weight.dequantized(), wanted)
    assert torch.equal(torch.as_tensor(gguf.read(tensor, None, keep=False)), wanted)


@pytest.mark.parametrize("kind", ["Q6_K", "Q2_K"])
def test_other_blocks_are_dequantized(kind: str) -> None:
    tensor = drawn(kind)
    wanted = torch.from_numpy(package.dequantize(tensor.data, tensor.tensor_type).copy())
    assert torch.equal(torch.as_tensor(gguf.read(tensor, None, keep=True)), wanted)


def test_blocks_that_nobody_reads_are_refused() -> None:
    tensor = SimpleNamespace(
        name="blk.0.x.weight", tensor_type=package.GGMLQuantizationType.Q8_K, data=np.zeros((1, 292), np.uint8)
    )
    with pytest.raises(NotSupported, match=r"blk\.0\.x\.weight is of the kind Q8_K"):
        gguf.read(tensor, None, keep=True)


def test_rows_come_in_the_order_of_halves() -> None:
    order = gguf.row_order("blk.0.attn_q.weight", 8, 2, 1)
    assert order is not None and order.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    few = gguf.row_order("blk.0.attn_k.weight", 8, 2, 1)
    assert few is not None and few.tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert gguf.row_order("blk.0.attn_v.weight", 8, 2, 1) is None
    tensor = drawn("Q4_0")
    rows = torch.arange(OUTS).flip(0)
    kept = gguf.read(tensor, rows, keep=True)
    assert isinstance(kept, QuantizedWeight)
    assert torch.equal(kept.dequantized(), torch.as_tensor(gguf.read(tensor, rows, keep=False)))


def test_tensors_have_the_names_of_the_module() -> None:
    names = ("model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.bias", "model.norm.weight", "other.weight")
    found = gguf.places("qwen2", 2, names)
    assert found == {
        "token_embd.weight": names[0], "blk.1.attn_q.bias": names[1], "output_norm.weight": names[2],
    }  # fmt: skip

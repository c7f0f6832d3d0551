"""The ops between matrix products, bit for bit (the activations aside) what transformers' modules compute."""

from __future__ import annotations

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as apply_partial
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from llmos.drivers.ops.quantized_linear import rounded_inputs
from llmos.drivers.ops.reference_attention import write_kv
from llmos.drivers.ops.reference_layers import (
    add_layer_norm, add_rms_norm, add_rms_norm_float8, gelu_mul, gelu_tanh_mul, layer_norm, rms_norm, rms_norm_float8,
    rope, rope_write, silu_mul,
)  # fmt: skip

DTYPES = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_are_those_of_llama_and_gemma(dtype: torch.dtype) -> None:
    x, residual = torch.randn(5, 48).to(dtype), torch.randn(5, 48).to(dtype)
    llama, gemma = LlamaRMSNorm(48, 1e-5).to(dtype), Gemma2RMSNorm(48, 1e-6).to(dtype)
    for norm in (llama, gemma):
        torch.nn.init.normal_(norm.weight)
    assert torch.equal(rms_norm(x, llama.weight, 1e-5), llama(x))
    assert torch.equal(rms_norm(x, gemma.weight, 1e-6, True, False), gemma(x))
    normed, total = add_rms_norm(x, residual, llama.weight, 1e-5)
    assert torch.equal(total, residual + x) and torch.equal(normed, llama(residual + x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_narrow_norms_are_the_norms_rounded_to_e4m3(dtype: torch.dtype) -> None:
    x, residual, weight = (torch.randn(*shape).to(dtype) for shape in ((1, 5, 48), (1, 5, 48), (48,)))
    for flags in ((False, True), (True, False)):
        alone, (rows, total) = rms_norm_float8(x, weight, 1e-5, *flags), add_rms_norm_float8(x, residual, weight, 1e-5)
        assert torch.equal(alone.worth(), rounded_inputs(rms_norm(x, weight, 1e-5, *flags), 0, "float8"))
        assert torch.equal(rows.worth(), rounded_inputs(add_rms_norm(x, residual, weight, 1e-5)[0], 0, "float8"))
        assert torch.equal(total, residual + x) and alone.shape == rows.shape == x.shape


def test_the_scale_can_be_one_plus_weight_and_be_applied_late_or_early() -> None:
    x, weight = torch.randn(3, 32).bfloat16(), torch.randn(32).bfloat16()
    assert torch.equal(rms_norm(x, weight, 1e-6, True, True), rms_norm(x, 1 + weight, 1e-6))
    early, late = rms_norm(x, weight, 1e-6, False, False), rms_norm(x, weight, 1e-6)
    assert torch.allclose(early.float(), late.float(), rtol=2**-7) and not torch.equal(early, late)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, False)])
def test_layer_norm_is_that_of_torch(dtype: torch.dtype, affine: bool, bias: bool) -> None:
    x, residual = torch.randn(5, 48).to(dtype), torch.randn(5, 48).to(dtype)
    norm = torch.nn.LayerNorm(48, 1e-3, affine, bias).to(dtype)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(layer_norm(x, norm.weight, norm.bias, 1e-3), norm(x))
    normed, total = add_layer_norm(x, residual, norm.weight, norm.bias, 1e-3)
    assert torch.equal(total, residual + x) and torch.equal(normed, norm(residual + x))


def test_gated_units_use_their_activation() -> None:
    gate, up = torch.randn(4, 6), torch.randn(4, 6)
    merged = torch.cat([gate, up], dim=-1)
    for ours, theirs in (
        (silu_mul, torch.nn.SiLU()), (gelu_mul, torch.nn.GELU()), (gelu_tanh_mul, torch.nn.GELU(approximate="tanh")),
    ):  # fmt: skip
        torch.testing.assert_close(ours(merged), theirs(gate) * up, rtol=1e-6, atol=1e-6)


def turned(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> list[torch.Tensor]:
    """By transformers, whose tensors are [batch, heads, T, D]."""
    apply = apply_rotary_pos_emb if cos.shape[-1] == q.shape[-1] else apply_partial
    return [part[0].transpose(0, 1) for part in apply(*(h.transpose(0, 1)[None] for h in (q, k)), cos[None], sin[None])]


@pytest.mark.parametrize("rotary", [16, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rope_is_that_of_transformers(dtype: torch.dtype, rotary: int) -> None:
    q, k = torch.randn(5, 4, 16).to(dtype), torch.randn(5, 2, 16).to(dtype)
    angles = torch.randn(5, rotary // 2).repeat(1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    wanted = turned(q, k, cos, sin)
    rope(q, k, cos, sin)
    assert torch.equal(q, wanted[0]) and torch.equal(k, wanted[1])


def test_rope_write_is_rope_and_then_write() -> None:
    q, k, v = torch.randn(3, 4, 8), torch.randn(3, 2, 8), torch.randn(3, 2, 8)
    angles, slots = torch.randn(3, 4).repeat(1, 2), torch.tensor([17, 3, 18])
    pages = torch.zeros(4, 2, 2, 16, 8)
    untouched, wanted = k.clone(), turned(q, k, angles.cos(), angles.sin())
    rope_write(q, k, angles.cos(), angles.sin(), v, pages[0], pages[1], slots)
    write_kv(wanted[1], v, pages[2], pages[3], slots)
    assert torch.equal(q, wanted[0]) and torch.equal(k, untouched)
    assert torch.equal(pages[0], pages[2]) and torch.equal(pages[1], pages[3]) and pages[2].any()

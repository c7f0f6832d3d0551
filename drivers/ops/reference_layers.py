"""What stands between the matrix products of a decoder layer, in plain torch; each rounds where transformers does.

| op | arguments | answer |
|---|---|---|
| `add` | x [..., H], residual [..., H] | their sum |
| `rms_norm` | x [..., H], weight [H], eps; unit_offset, round_first | [..., H] |
| `add_rms_norm` | x [..., H], residual [..., H], weight [H], eps; unit_offset, round_first | the norm, the sum |
| `rms_norm_float8`, `add_rms_norm_float8` | as without `_float8` | the norm as `Float8Rows`; and the sum |
| `layer_norm` | x [..., H], weight and bias [H] or None, eps | [..., H] |
| `add_layer_norm` | x [..., H], residual [..., H], weight and bias [H] or None, eps | the norm, the sum |
| `silu_mul`, `gelu_mul`, `gelu_tanh_mul` | gate and up side by side [..., 2 I] | [..., I] |
| `rope` | q [T, Hq, D], k [T, Hkv, D], cos [T, R], sin [T, R] | nothing; q and k are turned in place |
| `rope_write` | as `rope`, then v, pages, slots, scales as of `write_kv` | nothing; q is turned, pages are written |
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .float8 import Float8Rows, float8_rows
from .reference_attention import write_kv


def add(x: Tensor, residual: Tensor) -> Tensor:
    """residual + x."""
    return residual + x


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, unit_offset: bool = False, round_first: bool = True
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, with the mean in float32 (Zhang and Sennrich 2019).

    `unit_offset`: the scale is 1 + weight. `round_first`: rounded to x's dtype before the scale is applied in that
    dtype (Llama); else scaled in float32 and rounded once (Gemma).
    """
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    if round_first:
        return (1.0 + weight if unit_offset else weight) * normed.to(x.dtype)
    return (normed * (1.0 + weight.float() if unit_offset else weight.float())).to(x.dtype)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, unit_offset: bool = False, round_first: bool = True
) -> tuple[Tensor, Tensor]:
    """The norm of residual + x, and that sum, rounded to its dtype before its norm is taken."""
    total = residual + x
    return rms_norm(total, weight, eps, unit_offset, round_first), total


def rms_norm_float8(
    x: Tensor, weight: Tensor, eps: float, unit_offset: bool = False, round_first: bool = True
) -> Float8Rows:
    """`rms_norm`, rounded to its dtype as ever and then to e4m3, for layers that multiply such inputs."""
    return float8_rows(rms_norm(x, weight, eps, unit_offset, round_first))


def add_rms_norm_float8(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, unit_offset: bool = False, round_first: bool = True
) -> tuple[Float8Rows, Tensor]:
    """`add_rms_norm` with the norm rounded to e4m3; the sum stays in its dtype."""
    normed, total = add_rms_norm(x, residual, weight, eps, unit_offset, round_first)
    return float8_rows(normed), total


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias, in float32 and rounded once (Ba, Kiros and Hinton 2016)."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """The norm of residual + x, and that sum, rounded to its dtype before its norm is taken."""
    total = residual + x
    return layer_norm(total, weight, bias, eps), total


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, rounded after each."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def gelu_mul(gate_up: Tensor) -> Tensor:
    """gelu(gate) * up with the exact error function, rounded after each."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate) * up


def gelu_tanh_mul(gate_up: Tensor) -> Tensor:
    """gelu(gate) * up with the tanh approximation, rounded after each."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn the first R dimensions of each head by its position's angles, in place (Su et al. 2021).

    The two halves of the R dimensions are the pairs, as in `apply_rotary_pos_emb` of transformers' Llama.
    """
    for heads in (q, k):
        turned = heads[..., : cos.shape[-1]]
        low, high = turned.chunk(2, dim=-1)
        turned.copy_(turned * cos[:, None] + torch.cat((-high, low), dim=-1) * sin[:, None])


def rope_write(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, slots: Tensor,
    key_scale: Tensor | None = None, value_scale: Tensor | None = None,
) -> None:  # fmt: skip
    """Turn q in place, and put turned keys and the values into their pages; k itself stays as it is."""
    k = k.clone()
    rope(q, k, cos, sin)
    write_kv(k, v, k_pages, v_pages, slots, key_scale, value_scale)

"""Plain torch implementations of every op; the oracle that faster ones are tested against.

| op | arguments | answer |
|---|---|---|
| `replay` | nothing | what carries out a function of ops, and may repeat it: see `Replay` |
| `pool_states` | states [B, T, D], mask [B, T], how: mean, cls or last | vectors [B, D] float32 |

`reference_attention`, `reference_layers`, `linear` and `quantized_linear` hold those of the decoder layer,
`reference_sampling` that of sampling on the device, `reference_experts` that of mixtures of experts. `filter_logits`,
`penalize_logits` and `top_logprobs` say what sampling means for one row of logits [V] in float32; the engine's sampling
is tested against them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .linear import OneDnnLinear, PlainLinear
from .quantized_linear import ReferenceQuantized
from .reference_attention import packed_attention, paged_attention, write_kv
from .reference_experts import experts
from .reference_layers import (
    add, add_layer_norm, add_rms_norm, add_rms_norm_float8, gelu_mul, gelu_tanh_mul, layer_norm, rms_norm,
    rms_norm_float8, rope, rope_write, silu_mul,
)  # fmt: skip
from .reference_lora import lora_expand, lora_shrink
from .reference_sampling import sample
from .replay import Plain
from .table import OpTable, Spec

NAME = "torch"


def filter_logits(logits: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Take tokens out by top-k, then top-p, then min-p; 0, 1 and 0 turn them off. Equal logits stay or go together.

    Top-p keeps the smallest set of best tokens whose probability reaches `top_p` (Holtzman et al. 2019); min-p keeps
    tokens of at least `min_p` times the best one's probability (Nguyen et al. 2024). Each sees what the one before
    left. All three cut the tail of the sorted logits, so that together they are one threshold.
    """
    size = logits.shape[-1]
    floor = -math.inf
    if min_p > 0.0:
        floor = float(logits.max()) + math.log(min_p)
    if 0 < top_k < size or top_p < 1.0:
        best = torch.sort(logits, descending=True).values
        if 0 < top_k < size:
            best = best[best >= best[top_k - 1]]
        kept = best.shape[-1]
        if top_p < 1.0:
            probabilities = torch.softmax(best, dim=-1)
            kept = max(1, int((torch.cumsum(probabilities, dim=-1) - probabilities < top_p).sum()))
        floor = max(floor, float(best[kept - 1]))
    return logits if floor == -math.inf else logits.masked_fill(logits < floor, -torch.inf)


def penalize_logits(
    logits: Tensor, seen: Tensor, counts: Tensor, repetition: float, presence: float, frequency: float
) -> Tensor:
    """Make tokens that occurred less likely.

    `seen` marks tokens of prompt and answer: their logit is divided by `repetition` when positive and multiplied when
    negative (Keskar et al. 2019). `counts` counts tokens of the answer only: `frequency` is taken off for each
    occurrence and `presence` once.
    """
    if repetition != 1.0:
        scaled = torch.where(logits > 0, logits / repetition, logits * repetition)
        logits = torch.where(seen, scaled, logits)
    if presence != 0.0 or frequency != 0.0:
        logits = logits - frequency * counts - presence * (counts > 0)
    return logits


def top_logprobs(logits: Tensor, token: int, count: int) -> tuple[float, list[int], list[float]]:
    """Natural log-softmax at `token` and the `count` best tokens with theirs, best first."""
    logprobs = torch.log_softmax(logits, dim=-1)
    best = torch.topk(logprobs, min(count, logits.shape[-1]))
    return float(logprobs[token]), best.indices.tolist(), best.values.tolist()


def pool_states(states: Tensor, mask: Tensor, how: str) -> Tensor:
    """One vector per row from the states where `mask` is 1: their mean, the first or the last of them."""
    states = states.float()
    if how == "mean":
        weights = mask.to(states.dtype).unsqueeze(-1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    kept = mask.bool()
    if how == "cls":
        index = positions.masked_fill(~kept, mask.shape[1]).min(dim=1).values.clamp(max=mask.shape[1] - 1)
    else:
        index = positions.masked_fill(~kept, 0).max(dim=1).values
    return states[torch.arange(states.shape[0], device=states.device), index]


def register_reference(table: OpTable) -> None:
    """Put the reference of every op into a table; do it first, so that it is asked last."""
    for call in (
        pool_states, paged_attention, packed_attention, write_kv, add, rms_norm, add_rms_norm, rms_norm_float8,
        add_rms_norm_float8, layer_norm, add_layer_norm, silu_mul, gelu_mul, gelu_tanh_mul, rope, rope_write,
        lora_shrink, lora_expand, sample, experts,
    ):  # fmt: skip
        table.register(call.__name__, NAME, call, _always)
    table.register("replay", NAME, Plain, _always)
    table.register("linear", NAME, PlainLinear, _always)
    table.register("linear", "onednn", OneDnnLinear, OneDnnLinear.supports)
    table.register("quantized_linear", NAME, ReferenceQuantized, _always)


def _always(spec: Spec) -> tuple[bool, str]:
    return True, ""

"""A mixture of experts in plain torch: each token through the few experts that its router chose.

    out[t] = sum over k of weights[t, k] * down[e] (gate(gate_up[e] x[t] + bias)) + bias,   e = chosen[t, k]

Weights of all experts are stacked; each is a gated unit (Shazeer 2020). A chosen expert that is not among them counts
for nothing: where experts are spread over several devices, each has some of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Gate:
    """What lies between an expert's two products: act(min(g, limit)) * (clamp(u, -limit, limit) + shift).

    `act` is silu, which is g * sigmoid(alpha * g), or gelu or gelu_tanh, whose alpha is 1. Without a `limit` (0)
    nothing is clamped. Rows of gate and up are one after the other in `gate_up`, or by turns when `interleaved`.
    """

    act: str = "silu"
    interleaved: bool = False
    alpha: float = 1.0
    limit: float = 0.0
    shift: float = 0.0

    def __call__(self, both: Tensor) -> Tensor:
        """[.., 2 I] to [.., I]."""
        gate, up = (both[..., ::2], both[..., 1::2]) if self.interleaved else both.chunk(2, dim=-1)
        if self.limit:
            gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        up = up + self.shift if self.shift else up
        return self._activated(gate) * up

    def _activated(self, gate: Tensor) -> Tensor:
        if self.act == "silu":
            return F.silu(gate) if self.alpha == 1.0 else gate * torch.sigmoid(self.alpha * gate)
        return F.gelu(gate, approximate="tanh" if self.act == "gelu_tanh" else "none")


ACTIVATIONS = ("silu", "gelu", "gelu_tanh")


def experts(
    x: Tensor, gate_up: Tensor, down: Tensor, chosen: Tensor, weights: Tensor, gate: Gate,
    gate_up_bias: Tensor | None = None, down_bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """x [T, H] through gate_up [E, 2 I, H] and down [E, H, I] of the experts in chosen [T, K], weighted [T, K]: [T, H].

    Biases are [E, 2 I] and [E, H]. Stacks may be views of any strides. Each token's experts are added up in float32, in
    their order. Entries are sorted by expert, and each expert takes its own at once.
    """
    count, most = gate_up.shape[0], chosen.shape[1]
    order = chosen.flatten().argsort(stable=True)
    ids = chosen.flatten()[order]
    ends = torch.searchsorted(ids, torch.arange(count + 1, device=ids.device)).tolist()
    parts = x.new_zeros(order.shape[0], down.shape[1])
    for expert, (start, end) in enumerate(pairwise(ends)):
        if end > start:
            own = order[start:end]
            both = F.linear(x[own // most], gate_up[expert], None if gate_up_bias is None else gate_up_bias[expert])
            parts[own] = F.linear(gate(both), down[expert], None if down_bias is None else down_bias[expert])
    parts = parts.view(-1, most, down.shape[1])
    return (parts.float() * weights.float()[..., None]).sum(1).to(x.dtype)

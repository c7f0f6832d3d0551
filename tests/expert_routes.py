"""Who chooses which experts, and what their mixture must be, for every implementation of the op."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from llmos.drivers.ops.reference_experts import Gate

EXPERTS, WIDTH, INNER = 5, 20, 18
ACTS = (Gate(), Gate("gelu"), Gate("gelu_tanh"), Gate(interleaved=True, alpha=1.702, limit=0.7, shift=1.0))


@st.composite
def routes(draw: st.DrawFn) -> list[list[int]]:
    """Tokens with as many experts each: mixed, all the same one, or also experts that are not here."""
    most, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    some = draw(st.sampled_from((range(EXPERTS), (2,), (0, 4), range(-2, EXPERTS + 3))))
    row = st.lists(st.sampled_from(some), min_size=most, max_size=most)
    return draw(st.lists(row, min_size=tokens, max_size=tokens))


def check_experts(
    experts: Callable[..., Tensor], chosen: Sequence[Sequence[int]], gate: Gate, transposed: bool, biases: bool,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    """One implementation against the formula."""
    torch.manual_seed(0)
    x, stacks = torch.randn(len(chosen), WIDTH).to(dtype), []
    for outs, ins in ((2 * INNER, WIDTH), (WIDTH, INNER)):
        shape = (EXPERTS, ins, outs) if transposed else (EXPERTS, outs, ins)
        made = (torch.randn(shape) * ins**-0.5).to(dtype)
        stacks.append(made.transpose(1, 2) if transposed else made)
    offsets = [torch.randn(EXPERTS, outs).to(dtype) if biases else None for outs in (2 * INNER, WIDTH)]
    weights = torch.rand(len(chosen), len(chosen[0]))
    found = experts(x, *stacks, torch.tensor(chosen), weights, gate, *offsets)
    wanted = torch.zeros(len(chosen), WIDTH)
    for token, own in enumerate(chosen):
        for expert, weight in zip(own, weights[token], strict=True):
            if 0 <= expert < EXPERTS:
                through = _layer(stacks[0], offsets[0], expert, x[token].float())
                wanted[token] += weight * _layer(stacks[1], offsets[1], expert, _between(gate, through))
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 4e-2, "atol": 4e-2}
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, **close)


def _layer(stack: Tensor, bias: Tensor | None, expert: int, x: Tensor) -> Tensor:
    return stack[expert].float() @ x + (0.0 if bias is None else bias[expert].float())


def _between(gate: Gate, both: Tensor) -> Tensor:
    """Written again, number by number."""
    size = both.shape[0] // 2
    made = []
    for at in range(size):
        g, u = (both[2 * at], both[2 * at + 1]) if gate.interleaved else (both[at], both[size + at])
        if gate.limit:
            g, u = g.clamp(max=gate.limit), u.clamp(-gate.limit, gate.limit)
        act = {
            "silu": g / (1 + torch.exp(-gate.alpha * g)), "gelu": F.gelu(g), "gelu_tanh": F.gelu(g, approximate="tanh")
        }[gate.act]  # fmt: skip
        made.append(act * (u + gate.shift))
    return torch.stack(made)

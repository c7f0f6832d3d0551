"""The mixture of experts equals the plain formula, entry by entry, whoever is chosen."""

from __future__ import annotations

import torch
from expert_routes import ACTS, check_experts, routes
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.drivers.ops.reference_experts import Gate, experts


@settings(max_examples=40)
@given(routes(), st.sampled_from(ACTS), st.booleans(), st.booleans())
def test_each_token_goes_through_its_experts(
    chosen: list[list[int]], gate: Gate, transposed: bool, biases: bool
) -> None:
    check_experts(experts, chosen, gate, transposed, biases, torch.float32)


def test_a_gate_without_limits_is_the_plain_one() -> None:
    both = torch.randn(3, 8) * 9
    gate, up = both.chunk(2, dim=-1)
    assert torch.equal(Gate()(both), torch.nn.functional.silu(gate) * up)
    assert Gate(limit=1.0)(both).abs().max() <= 1.0
    by_turns = torch.stack([gate, up], dim=-1).flatten(1)
    assert torch.equal(Gate(interleaved=True)(by_turns), Gate()(both))


def test_parts_in_half_precision_are_added_up_in_float32() -> None:
    """One large part and many small ones, which would vanish beside it."""
    x, gate_up = torch.ones(1, 2).bfloat16(), torch.ones(65, 2, 2).bfloat16()
    down = torch.full((65, 2, 1), 1.0).bfloat16()
    down[0] = 512.0
    chosen, weights = torch.arange(65)[None], torch.ones(1, 65)
    one = experts(x, gate_up[1:2], down[1:2], torch.tensor([[0]]), torch.ones(1, 1), Gate()).float()
    total = experts(x, gate_up, down, chosen, weights, Gate()).float()
    torch.testing.assert_close(total, one * (512 + 64), rtol=2.0**-8, atol=0.0)

"""Gated units and rotary positions in Triton, beside the contract of all implementations (`test_contract`)."""

from __future__ import annotations

import math

import pytest
import torch

from llmos.drivers.ops import reference_layers as layers
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.triton import gates
from llmos.syscalls.errors import BadArgument, NotSupported


@pytest.mark.parametrize("op", gates.KINDS)
def test_gates_far_from_zero_are_open_or_shut(op: str) -> None:
    found = gates.gated(op)(torch.tensor([[-200.0, 0.0, 200.0, 1.0, 1.0, 2.0]]))
    assert torch.equal(found.abs(), torch.tensor([[0.0, 0.0, 400.0]]))
    assert math.isnan(float(gates.gated(op)(torch.tensor([[math.nan, 1.0]]))))


def test_heads_beside_those_of_the_step_are_not_touched() -> None:
    merged = torch.randn(3, 7, 16)
    kept = merged.clone()
    cos, sin = torch.randn(3, 8), torch.randn(3, 8)
    gates.rope(merged[:, 1:4], merged[:, 5:6], cos, sin)
    assert torch.equal(merged[:, [0, 4, 6]], kept[:, [0, 4, 6]]) and torch.equal(merged[..., 8:], kept[..., 8:])
    q, k = kept[:, 1:4].clone(), kept[:, 5:6].clone()
    layers.rope(q, k, cos, sin)
    torch.testing.assert_close(merged[:, 1:4], q)
    torch.testing.assert_close(merged[:, 5:6], k)


def test_many_heads_take_several_programs() -> None:
    heads, half = gates.rope_config(32, 128)
    assert (heads, half) == (16, 64) and gates.rope_config(3, 20) == (4, 16)
    q, k, angles = torch.randn(2, 20, 256), torch.randn(2, 9, 256), torch.randn(2, 256)
    wanted = q.clone(), k.clone()
    layers.rope(*wanted, angles, angles)
    gates.rope(q, k, angles, angles)
    torch.testing.assert_close((q, k), wanted)


def test_what_does_not_fit_together_is_refused() -> None:
    q, angles = torch.randn(2, 3, 8), torch.randn(2, 8)
    for call in (
        lambda: gates.gated("silu_mul")(torch.randn(2, 7)), lambda: gates.rope(q, q, angles[:1], angles[:1]),
        lambda: gates.rope(q, q.half(), angles, angles), lambda: gates.rope(q, q, angles, angles[:, :4]),
        lambda: gates.rope(q, q, torch.randn(2, 10), torch.randn(2, 10)),
        lambda: gates.rope(q, q, torch.randn(2, 3), torch.randn(2, 3)),
    ):  # fmt: skip
        with pytest.raises(BadArgument):
            call()
    with pytest.raises(NotSupported, match="no gradient"):
        gates.gated("silu_mul")(torch.randn(2, 8, requires_grad=True))


def test_nothing_is_no_row() -> None:
    assert gates.gated("gelu_mul")(torch.randn(0, 8)).shape == (0, 4)
    q, angles = torch.randn(0, 3, 8), torch.randn(0, 8)
    gates.rope(q, q, angles, angles)
    q = torch.randn(2, 3, 8)
    kept = q.clone()
    gates.rope(q, q, torch.randn(2, 0), torch.randn(2, 0))
    assert torch.equal(q, kept)


def test_they_serve_what_kernels_serve() -> None:
    table = OpTable()
    gates.register(table)
    for op in (*gates.KINDS, "rope"):
        assert table.choose(op, {"device": "cpu", "dtype": "float16"}).implementation.name == "triton"

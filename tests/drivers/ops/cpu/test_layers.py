"""Norms, gated units, rotary positions and page writes in C++ against the references."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.drivers.ops import reference_attention, reference_layers
from llmos.drivers.ops.cpu.layers import KINDS, Layers
from llmos.drivers.ops.cpu.native import Native
from llmos.syscalls.errors import BadArgument, NotSupported

DTYPES = (torch.float32, torch.bfloat16)
MANY = (70, 1000)
"""Rows and columns enough to be shared among threads."""


def close(ours: torch.Tensor, reference: torch.Tensor) -> None:
    """A sum in another order may round to the neighbour, and so may what is made of that."""
    assert ours.dtype == reference.dtype and ours.shape == reference.shape
    unit = torch.finfo(ours.dtype).eps * (2 if ours.dtype == torch.bfloat16 else 8)
    assert torch.allclose(ours.float(), reference.float(), rtol=unit, atol=2e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [(False, True), (True, False), (True, True), (False, False)])
@pytest.mark.parametrize("shape", [(1, 3, 48), (5, 17), MANY])
def test_norms(
    native: Native, threads: int, dtype: torch.dtype, form: tuple[bool, bool], shape: tuple[int, ...]
) -> None:
    x, residual, weight = (torch.randn(*size).to(dtype) for size in (shape, shape, shape[-1:]))
    ours, layers = Layers(native), reference_layers
    close(ours.rms_norm(x, weight, 1e-5, *form), layers.rms_norm(x, weight, 1e-5, *form))
    normed, total = ours.add_rms_norm(x, residual, weight, 1e-5, *form)
    expected, sum_of_both = layers.add_rms_norm(x, residual, weight, 1e-5, *form)
    close(normed, expected)
    assert torch.equal(total, sum_of_both)


@pytest.mark.parametrize("dtype", DTYPES)
def test_most_of_a_norm_in_bfloat16_is_the_same_bits(native: Native, dtype: torch.dtype) -> None:
    x, weight = torch.randn(100, 896).to(dtype), torch.randn(896).to(dtype)
    same = Layers(native).rms_norm(x, weight, 1e-6) == reference_layers.rms_norm(x, weight, 1e-6)
    assert float(same.float().mean()) > (0.999 if dtype == torch.bfloat16 else 0.3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", sorted(KINDS))
def test_gated_units(native: Native, threads: int, dtype: torch.dtype, op: str) -> None:
    """Over the whole range: where the activation vanishes, is linear, overflows in between, and is not a number."""
    special = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 120.0, -120.0, 3e4, -3e4, 3e30, torch.nan])
    gate = torch.cat([torch.linspace(-15, 15, 4990), special])
    for shape in ((50, 100), (1, 5000), (2, 50, 50)):
        merged = torch.cat([gate.view(shape), torch.randn(shape)], dim=-1).to(dtype)
        ours, expected = Layers(native).gated(op)(merged), getattr(reference_layers, op)(merged)
        unit = torch.finfo(dtype).eps * (2 if dtype == torch.bfloat16 else 16)
        torch.testing.assert_close(ours.float(), expected.float(), rtol=unit, atol=3e-6, equal_nan=True)


def rope_case(
    dtype: torch.dtype, tokens: int, heads: int, kv_heads: int, dim: int, rotary: int, page: int = 16
) -> tuple[Any, ...]:
    """As the arguments of `rope_write`; q, k and v are slices of one product, the pages views of a block."""
    merged = torch.randn(tokens, heads + 2 * kv_heads, dim).to(dtype)
    q, k, v = merged.split([heads, kv_heads, kv_heads], dim=1)
    angles = torch.randn(tokens, rotary // 2).repeat(1, 2)
    pages = torch.zeros(tokens // page + 3, 2, 2, kv_heads, page, dim).to(dtype)
    slots = torch.randperm(pages.shape[0] * page)[:tokens]
    return q, k, angles.cos().to(dtype), angles.sin().to(dtype), v, pages[:, 1, 0], pages[:, 1, 1], slots


def both(call: str, arguments: tuple[Any, ...], native: Native) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The arguments after the call of ours and after that of the reference."""
    answers = []
    home = reference_attention if call == "write_kv" else reference_layers
    for run in (getattr(Layers(native), call), getattr(home, call)):
        copies = [argument.clone() for argument in arguments]
        run(*copies)
        answers.append(copies)
    return answers[0], answers[1]


@settings(max_examples=40)
@given(
    st.sampled_from(DTYPES), st.integers(0, 40), st.integers(1, 5), st.integers(1, 3), st.integers(1, 40),
    st.integers(0, 40), st.sampled_from([1, 16, 32]),
)  # fmt: skip
def test_positions_and_page_writes_are_bit_for_bit_the_reference(
    native: Native, dtype: torch.dtype, tokens: int, heads: int, kv_heads: int, half: int, rotary: int, page: int
) -> None:
    q, k, cos, sin, v, *pages = rope_case(dtype, tokens, heads, kv_heads, 2 * half, 2 * min(rotary, half), page)
    for call, arguments in (
        ("rope", (q, k, cos, sin)), ("rope_write", (q, k, cos, sin, v, *pages)), ("write_kv", (k, v, *pages)),
    ):  # fmt: skip
        ours, expected = both(call, arguments, native)
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True)), call


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_tokens_are_shared_among_threads(native: Native, threads: int, dtype: torch.dtype) -> None:
    ours, expected = both("rope_write", rope_case(dtype, 300, 6, 2, 64, 64), native)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    assert ours[5].any() and ours[6].any()


def test_views_are_changed_in_place(native: Native) -> None:
    q, k, cos, sin, *_ = rope_case(torch.float32, 3, 2, 1, 8, 8)
    before = q.clone()
    Layers(native).rope(q, k, cos, sin)
    assert not torch.equal(q, before)


def test_what_does_not_fit_is_refused_by_name(native: Native) -> None:
    layers, x = Layers(native), torch.randn(2, 8)
    q, k, cos, sin, v, keys, values, slots = rope_case(torch.float32, 3, 2, 1, 8, 8)
    with pytest.raises(BadArgument, match="dtype"):
        layers.rms_norm(x.double(), torch.ones(8).double(), 1e-5)
    with pytest.raises(BadArgument, match="weight"):
        layers.rms_norm(x, torch.ones(7), 1e-5)
    with pytest.raises(BadArgument, match="residual"):
        layers.add_rms_norm(x, x[:1], torch.ones(8), 1e-5)
    with pytest.raises(BadArgument, match="gate_up"):
        layers.gated("silu_mul")(x[:, :7])
    with pytest.raises(BadArgument, match="cos and sin"):
        layers.rope(q, k, cos[:, :7], sin[:, :7])
    with pytest.raises(BadArgument, match="tokens"):
        layers.rope(q, k, cos[:2], sin[:2])
    with pytest.raises(BadArgument, match="a tensor"):
        layers.rope(q.double(), k, cos, sin)
    with pytest.raises(BadArgument, match="slots"):
        layers.write_kv(k, v, keys, values, slots.int())
    with pytest.raises(BadArgument, match="pages"):
        layers.write_kv(k, v, keys[..., :4], values, slots)
    with pytest.raises(NotSupported, match="no gradient"):
        layers.rms_norm(x.requires_grad_(), torch.ones(8), 1e-5)

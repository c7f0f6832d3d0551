"""Paged attention and page writes against transformers' own attention functions and masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paged_rows import Rows, make_rows
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.llama import modeling_llama

from llmos.drivers.ops.reference_attention import LIMITS, packed_attention, paged_attention, quantize, write_kv


def expected(rows: Rows, row: int, scale: float, window: int, softcap: float, sinks: torch.Tensor | None) -> Any:
    """One row by transformers' eager attention, its mask from transformers' own rule."""
    q = rows.queries(row)
    length, count = int(rows.lengths[row]), q.shape[0]
    sees = sliding_window_causal_mask_function(window) if window else causal_mask_function
    visible = [[bool(sees(0, 0, torch.tensor(i), torch.tensor(j))) for j in range(length)] for i in
               range(length - count, length)]  # fmt: skip
    mask = torch.zeros(1, 1, count, length).masked_fill(~torch.tensor(visible), torch.finfo(torch.float32).min)
    module = SimpleNamespace(num_key_value_groups=q.shape[1] // rows.k_pages.shape[1], training=False, sinks=sinks)
    states = [part.transpose(0, 1)[None] for part in (q, rows.keys[row], rows.values[row])]
    if sinks is not None:
        out, _ = modeling_gpt_oss.eager_attention_forward(module, *states, mask, scaling=scale)
    elif softcap:
        out, _ = modeling_gemma2.eager_attention_forward(module, *states, mask, scaling=scale, softcap=softcap)
    else:
        out, _ = modeling_llama.eager_attention_forward(module, *states, mask, scaling=scale)
    return out[0]


@pytest.mark.parametrize(("softcap", "with_sinks"), [(0.0, False), (3.0, False), (0.0, True)])
@pytest.mark.parametrize("window", [0, 1, 5, 40])
def test_each_row_is_what_transformers_computes(window: int, softcap: float, with_sinks: bool) -> None:
    rows = make_rows([(1, 37), (5, 5), (3, 48), (1, 1)], heads=6, kv_heads=2, dim=8, value_dim=4)
    sinks = torch.randn(6, generator=torch.Generator().manual_seed(1)) if with_sinks else None
    out = paged_attention(*rows.arguments(), 0.3, window, softcap, sinks)
    assert out.shape == (10, 6, 4)
    for row in range(4):
        wanted = expected(rows, row, 0.3, window, softcap, sinks)
        assert torch.allclose(out[int(rows.cu_q[row]) : int(rows.cu_q[row + 1])], wanted, atol=1e-5)


def test_a_row_without_queries_costs_nothing() -> None:
    rows = make_rows([(2, 20), (0, 17), (1, 3)], heads=2, kv_heads=1, dim=4, value_dim=4)
    out = paged_attention(*rows.arguments(), 1.0)
    assert torch.allclose(out[2:], expected(rows, 2, 1.0, 0, 0.0, None), atol=1e-5)


def test_bfloat16_is_rounded_once() -> None:
    rows = make_rows([(4, 100)], heads=4, kv_heads=2, dim=16, value_dim=16, dtype=torch.bfloat16)
    exact = paged_attention(*(part.double() if part.is_floating_point() else part for part in rows.arguments()), 0.25)
    out = paged_attention(*rows.arguments(), 0.25)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.double(), exact, atol=0, rtol=2**-8)


@given(st.lists(st.integers(0, 63), min_size=1, max_size=20, unique=True), st.integers(1, 3))
def test_what_is_written_is_found_in_its_slot_and_nothing_else_changes(places: list[int], heads: int) -> None:
    slots = torch.tensor(places)
    k, v = torch.randn(len(places), heads, 4), torch.randn(len(places), heads, 2)
    block = torch.zeros(4, 2, heads * 16 * 6)
    k_pages = block[:, 1, : heads * 64].unflatten(-1, (heads, 16, 4))
    v_pages = block[:, 1, heads * 64 :].unflatten(-1, (heads, 16, 2))
    write_kv(k, v, k_pages, v_pages, slots)
    for n, slot in enumerate(places):
        assert torch.equal(k_pages[slot // 16, :, slot % 16], k[n])
        assert torch.equal(v_pages[slot // 16, :, slot % 16], v[n])
    assert int((block != 0).sum()) == k.numel() + v.numel()


def test_each_packed_row_is_what_transformers_computes() -> None:
    """Its own tokens alone, those after it too; an empty row takes part."""
    lengths, generator = (3, 0, 17, 1), torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(sum(lengths), heads, 8, generator=generator) for heads in (6, 2, 2))
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    out = packed_attention(q, k, v, starts, 0.3)
    module = SimpleNamespace(num_key_value_groups=3, training=False)
    for row in (0, 2, 3):
        here = slice(int(starts[row]), int(starts[row + 1]))
        states = (part[here].transpose(0, 1)[None] for part in (q, k, v))
        wanted, _ = modeling_llama.eager_attention_forward(module, *states, None, scaling=0.3)
        assert torch.allclose(out[here], wanted[0], atol=1e-5)


def test_a_row_without_tokens_answers_zeros() -> None:
    rows = make_rows([(1, 5), (1, 1)], heads=4, kv_heads=2, dim=8, value_dim=4)
    rows.lengths[1] = 0
    for sinks in (None, torch.ones(4)):
        out = paged_attention(*rows.arguments(), 1.0, sinks=sinks)
        assert (out[1] == 0).all()
        assert out[0].abs().min() > 0


@pytest.mark.parametrize("dtype", LIMITS)
def test_quantized_heads_are_off_by_half_a_step_at_most(dtype: torch.dtype) -> None:
    sizes = torch.logspace(-6, 6, 200)[:, None, None]
    heads = torch.randn(200, 4, 64, generator=torch.Generator().manual_seed(2)) * sizes
    heads[7] = 0.0
    numbers, scale = quantize(heads, dtype)
    assert (numbers.dtype, scale.dtype) == (dtype, torch.float32)
    unit = scale.double()[..., None]
    half = unit / 2 if dtype == torch.int8 else torch.maximum(heads.double().abs() / 16, unit / 1024)
    off = (numbers.double() * unit - heads).abs()
    assert (off <= half * 1.0001).all()
    assert (off > 0).float().mean() > 0.5
    greatest = heads.abs().amax(-1)
    assert torch.allclose((numbers.double().abs() * unit).amax(-1).float(), greatest)
    assert (numbers[7].float() == 0).all() and (scale[7] == 0).all()


@pytest.mark.parametrize("dtype", LIMITS)
def test_attention_to_quantized_pages_is_attention_to_what_they_hold(dtype: torch.dtype) -> None:
    rows = make_rows([(1, 37), (5, 20)], heads=6, kv_heads=2, dim=8, value_dim=4)
    exact = paged_attention(*rows.arguments(), 0.3)
    pages, scales = [], []
    for each in (rows.k_pages, rows.v_pages):
        pages.append(torch.zeros(each.shape, dtype=dtype))
        scales.append(torch.full(each.shape[:3], torch.nan))
    for row, length in enumerate(rows.lengths.tolist()):
        at = torch.arange(length)
        slots = rows.page_table[row].long()[at // 16] * 16 + at % 16
        write_kv(rows.keys[row], rows.values[row], *pages, slots, *scales)
    q, _, _, *rest = rows.arguments()
    out = paged_attention(q, *pages, *rest, 0.3, key_scale=scales[0], value_scale=scales[1])
    held = [page.float() * scale[..., None] for page, scale in zip(pages, scales, strict=True)]
    assert torch.allclose(out, paged_attention(q, *held, *rest, 0.3), atol=1e-6)
    off = float((out - exact).abs().max() / exact.abs().max())
    assert 1e-4 < off < (0.02 if dtype == torch.int8 else 0.08)

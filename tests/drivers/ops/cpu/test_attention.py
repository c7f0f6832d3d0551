"""Attention in C++ against the reference, and that a query's bits do not depend on how its row is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paged_rows import Rows, make_rows

from llmos.drivers.ops.cpu.attention import PackedAttention, PagedAttention
from llmos.drivers.ops.cpu.native import Native
from llmos.drivers.ops.reference_attention import packed_attention, paged_attention
from llmos.syscalls.errors import BadArgument, NotSupported

DTYPES = (torch.float32, torch.bfloat16)
SHAPES = ((6, 2, 8, 4), (14, 2, 64, 64), (4, 4, 80, 96), (7, 1, 192, 128), (130, 1, 6, 40), (2, 1, 34, 2))
MIXED = ((1, 37), (5, 5), (0, 17), (3, 48), (1, 1), (1, 300), (140, 290))


def check(native: Native, rows: Rows, scale: float, *rest: Any) -> torch.Tensor:
    """Equal up to the rounding of the weights to the dtype and of the answer."""
    out = PagedAttention(native)(*rows.arguments(), scale, *rest)
    wide = [part.float() if part.is_floating_point() else part for part in rows.arguments()]
    exact = paged_attention(*wide, scale, *rest)
    unit = 2**-8 if out.dtype == torch.bfloat16 else 2e-6
    largest = max(float(part.abs().max()) for part in rows.values if part.numel())
    assert out.dtype == rows.q.dtype and out.shape == exact.shape
    assert torch.allclose(out.float(), exact, rtol=unit, atol=unit * largest)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "value_dim"), SHAPES)
@pytest.mark.parametrize(("window", "softcap", "sinks"), [(0, 0.0, 0), (0, 3.0, 0), (20, 0.0, 1), (1, 1.5, 1)])
def test_it_is_the_reference(
    native: Native, dtype: torch.dtype, heads: int, kv_heads: int, dim: int, value_dim: int, window: int,
    softcap: float, sinks: int,
) -> None:  # fmt: skip
    rows = make_rows(MIXED, heads, kv_heads, dim, value_dim, dtype)
    check(native, rows, dim**-0.5, window, softcap, torch.randn(heads) if sinks else None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [0, 1200])
def test_long_rows_are_cut_into_segments(native: Native, threads: int, dtype: torch.dtype, window: int) -> None:
    """One row with one key head has fewer tasks than threads, and its segments are shared among them."""
    check(native, make_rows([(1, 3000)], 3, 1, 16, 16, dtype), 0.25, window)
    check(native, make_rows([(2, 2049), (50, 2060)], 4, 2, 16, 16, dtype), 0.25, window, 2.0, torch.randn(4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "with_sinks"), [(0, False), (150, True)])
def test_a_query_has_the_same_bits_in_any_step(
    native: Native, threads: int, dtype: torch.dtype, window: int, with_sinks: bool
) -> None:
    """All at once, in chunks, one by one, alone or beside others: as `prefill`, as `decode`."""
    attend, sinks = PagedAttention(native), torch.randn(6) if with_sinks else None
    rows = make_rows([(1200, 1200)], 6, 2, 32, 32, dtype)
    whole = attend(*rows.arguments(), 0.2, window, 0.0, sinks)
    for start, stop in ((0, 1), (0, 17), (128, 129), (129, 400), (1023, 1026), (1199, 1200)):
        table = rows.page_table.expand(2, -1)
        starts = torch.tensor([0, stop - start, stop - start + 1], dtype=torch.int32)
        lengths = torch.tensor([stop, 5], dtype=torch.int32)
        q = torch.cat([rows.q[start:stop], rows.q[4:5]])
        out = attend(q, rows.k_pages, rows.v_pages, table, starts, lengths, 0.2, window, 0.0, sinks)
        assert torch.equal(out, torch.cat([whole[start:stop], whole[4:5]]))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 260)).map(lambda r: (min(r), r[1])), min_size=1, max_size=4),
    st.integers(1, 3), st.integers(1, 20), st.integers(1, 40), st.integers(1, 40), st.integers(0, 200),
    st.sampled_from(DTYPES), st.integers(1, 2),
)  # fmt: skip
def test_any_shape(
    native: Native, rows: list[tuple[int, int]], kv_heads: int, group: int, dim: int, value_dim: int, window: int,
    dtype: torch.dtype, pages: int,
) -> None:  # fmt: skip
    dim += dim % 2
    check(native, make_rows(rows, kv_heads * group, kv_heads, dim, value_dim, dtype, page=16 * pages), 0.3, window)


def test_queries_may_lie_as_transformers_leaves_them(native: Native) -> None:
    rows = make_rows([(9, 30)], 4, 2, 16, 16)
    wanted = PagedAttention(native)(*rows.arguments(), 0.25)
    rows.q = rows.q.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(PagedAttention(native)(*rows.arguments(), 0.25), wanted)


def test_what_does_not_fit_is_refused_by_name(native: Native) -> None:
    attend, rows = PagedAttention(native), make_rows([(2, 20), (1, 5)], 4, 2, 16, 16)
    q, k, v, table, starts, lengths = rows.arguments()
    with pytest.raises(BadArgument, match="dtype"):
        attend(q.bfloat16(), k, v, table, starts, lengths, 1.0)
    with pytest.raises(BadArgument, match="k_pages"):
        attend(q[:, :3], k, v, table, starts, lengths, 1.0)
    with pytest.raises(BadArgument, match="strides"):
        attend(q, k.transpose(2, 3).contiguous().transpose(2, 3), v, table, starts, lengths, 1.0)
    with pytest.raises(BadArgument, match="lengths"):
        attend(q, k, v, table, starts, lengths.long(), 1.0)
    with pytest.raises(BadArgument, match="page_table"):
        attend(q, k, v, table.long(), starts, lengths, 1.0)
    with pytest.raises(NotSupported, match="no gradient"):
        attend(q.requires_grad_(), k, v, table, starts, lengths, 1.0)


def test_it_says_what_it_does_not_serve(native: Native) -> None:
    attend = PagedAttention(native)
    spec = {"device": "cpu", "dtype": "bfloat16", "key_width": 64, "page_tokens": 16}
    assert attend.supports(spec) == (True, "")
    assert "even" in attend.supports({**spec, "key_width": 63})[1]
    assert "multiple of 16" in attend.supports({**spec, "page_tokens": 8})[1]
    assert attend.supports({**spec, "device": "cuda"}) == (False, "it runs on the CPU")


def packed(
    lengths: list[int], heads: int, kv_heads: int, dim: int, value_dim: int, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values as slices of one product, as merged layers leave them, and where rows start."""
    tokens, generator = sum(lengths), torch.Generator().manual_seed(0)
    widths = [heads * dim, kv_heads * dim, kv_heads * value_dim]
    parts = torch.randn(tokens, sum(widths), generator=generator).to(dtype).split(widths, dim=1)
    shapes = ((heads, dim), (kv_heads, dim), (kv_heads, value_dim))
    q, k, v = (part.view(tokens, *shape) for part, shape in zip(parts, shapes, strict=True))
    return q, k, v, torch.tensor([0, *lengths]).cumsum(0).int()


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 260), min_size=1, max_size=5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 40),
    st.integers(1, 40), st.sampled_from(DTYPES),
)  # fmt: skip
def test_packed_rows_of_any_shape_are_the_reference(
    native: Native, lengths: list[int], kv_heads: int, group: int, dim: int, value_dim: int, dtype: torch.dtype
) -> None:
    q, k, v, starts = packed(lengths, kv_heads * group, kv_heads, dim + dim % 2, value_dim, dtype)
    out = PackedAttention(native)(q, k, v, starts, 0.3)
    exact = packed_attention(q.float(), k.float(), v.float(), starts, 0.3)
    unit = 2**-7 if dtype == torch.bfloat16 else 4e-6
    assert out.dtype == dtype and out.shape == exact.shape
    assert torch.allclose(out.float(), exact, rtol=unit, atol=unit * float(v.abs().max() if v.numel() else 0.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_packed_row_has_the_same_bits_alone(native: Native, threads: int, dtype: torch.dtype) -> None:
    attend, lengths = PackedAttention(native), [5, 1200, 1, 130, 16]
    q, k, v, starts = packed(lengths, 4, 4, 32, 32, dtype)
    whole = attend(q, k, v, starts, 0.2)
    for row, length in enumerate(lengths):
        here = slice(int(starts[row]), int(starts[row + 1]))
        alone = attend(q[here], k[here], v[here], torch.tensor([0, length], dtype=torch.int32), 0.2)
        assert torch.equal(alone, whole[here])


def test_packed_rows_that_do_not_fit_are_refused_by_name(native: Native) -> None:
    attend, (q, k, v, starts) = PackedAttention(native), packed([3, 4], 4, 2, 16, 16, torch.float32)
    with pytest.raises(BadArgument, match="dtype"):
        attend(q.bfloat16(), k, v, starts, 1.0)
    with pytest.raises(BadArgument, match="k is"):
        attend(q, k[1:], v, starts, 1.0)
    with pytest.raises(BadArgument, match="strides"):
        attend(q, k.transpose(0, 2).contiguous().transpose(0, 2), v, starts, 1.0)
    for wrong in ([0, 3, 8], [1, 3, 7], [0, 5, 4, 7]):
        with pytest.raises(BadArgument, match="starts"):
            attend(q, k, v, torch.tensor(wrong, dtype=torch.int32), 1.0)
    with pytest.raises(BadArgument, match="starts"):
        attend(q, k, v, starts.long(), 1.0)
    with pytest.raises(NotSupported, match="no gradient"):
        attend(q.clone().requires_grad_(), k, v, starts, 1.0)
    assert "even" in attend.supports({"device": "cpu", "dtype": "bfloat16", "key_width": 63})[1]

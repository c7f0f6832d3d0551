"""Which blocks a launch of attention gets, what is served, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmos.drivers.ops.cases.attention import paged
from llmos.drivers.ops.reference_attention import packed_attention as reference
from llmos.drivers.ops.triton import attend
from llmos.drivers.ops.triton.attend import (
    Config, Shape, packed_attention, paged_attention, select_config, supports,
)  # fmt: skip
from llmos.syscalls.errors import BadArgument

DECODE = Shape(64, 64, 8, 4, 128, 2, 8192)


@pytest.mark.parametrize(
    ("rows", "parts"), [(1, 64), (2, 64), (8, 16), (16, 8), (64, 2), (128, 1), (256, 1)]
)
def test_few_rows_have_their_keys_cut_in_parts(rows: int, parts: int) -> None:
    assert select_config(DECODE._replace(tokens=rows, rows=rows)) == Config(16, 64, parts, False, 4, 3)


def test_a_short_context_is_not_cut() -> None:
    assert select_config(DECODE._replace(tokens=1, rows=1, capacity=256)).splits == 2
    assert select_config(DECODE._replace(tokens=1, rows=1, capacity=16)).splits == 1


def test_many_queries_have_larger_blocks_whose_whole_tiles_need_no_masks() -> None:
    assert select_config(DECODE._replace(tokens=2048, rows=1)) == Config(128, 64, 1, True, 8, 3)
    assert select_config(DECODE._replace(tokens=64, rows=4)) == Config(64, 64, 4, True, 4, 3)
    assert select_config(DECODE._replace(tokens=2048, rows=1, width=256)).block == 64


def test_wider_heads_have_smaller_tiles() -> None:
    assert [select_config(DECODE._replace(width=width)).tile for width in (64, 80, 192, 300)] == [128, 64, 32, 16]


def test_a_block_holds_all_heads_that_share_a_key_head() -> None:
    for group in (1, 5, 16, 17, 71):
        for tokens in (64, 4096):
            shape = DECODE._replace(group=group, tokens=tokens)
            config = select_config(shape)
            assert config.block >= group * shape.queries(config.block)
            assert shape.queries(config.block) >= 1


def test_blocks_are_enough_for_any_lengths() -> None:
    for counts in ([7, 0, 5], [12, 0, 0], [1, 1, 10], [4, 4, 4]):
        for per in (1, 2, 4, 5):
            shape = DECODE._replace(tokens=12, rows=3, group=4)
            firsts = [sum(counts[:row]) // per + row for row in range(3)]
            ends = [first + -(-count // per) for first, count in zip(firsts, counts, strict=True)]
            assert all(end <= first for end, first in zip(ends, [*firsts[1:], shape.blocks(per * 4)], strict=True))


def test_what_is_served() -> None:
    usual = {"device": "cpu", "dtype": "bfloat16", "key_width": 128, "value_width": 128, "page_tokens": 16}
    assert supports(usual) == (True, "")
    assert supports({**usual, "kv_dtype": "int8"}) == (True, "")
    assert supports({**usual, "device": "cuda"})[0] is False
    assert supports({**usual, "key_width": 576}) == (False, "heads of 576 elements; kernels take up to 512")
    assert "float64" in supports({**usual, "kv_dtype": "float64"})[1]


def test_packed_rows_of_which_some_are_empty() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(25, heads, width, generator=generator) for heads, width in ((4, 16), (2, 16), (2, 8)))
    starts = torch.tensor([0, 3, 3, 24, 25], dtype=torch.int32)
    assert torch.allclose(packed_attention(q, k, v, starts, 0.3), reference(q, k, v, starts, 0.3), atol=1e-5)


def test_heads_that_do_not_lie_side_by_side() -> None:
    case = paged([(2, 20), (1, 5)], 4, 2, 16)
    made = case.make(torch.device("cpu"), torch.float32)
    q, *rest = made.args
    apart = torch.stack([q, q], 2).flatten(0, 1)[:, 0].unflatten(0, (3, 4))
    turned = q.transpose(0, 1).contiguous().transpose(0, 1)
    assert not apart.is_contiguous() and not turned.is_contiguous()
    for view in (apart, turned):
        assert torch.equal(paged_attention(view, *rest), paged_attention(q, *rest))


def test_nothing_to_do_launches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attend, "attend", None)
    made = paged([(1, 3)], 2, 1, 16).make(torch.device("cpu"), torch.float32)
    q, k, v, table, starts, lengths, scale = made.args
    assert paged_attention(q[:0], k, v, table, starts * 0, lengths, scale).shape == (0, 2, 16)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda q, k, v: (q[:, :1], torch.cat([k, k], 1), v), "k_pages"),
        (lambda q, k, v: (q[..., :8], k, v), "k_pages"),
        (lambda q, k, v: (q, k.to(torch.int8), v.to(torch.int8)), "key_scale"),
        (lambda q, k, v: (q, k.transpose(2, 3).contiguous().transpose(2, 3), v), "k"),
    ],
)
def test_arguments_of_another_kind_are_refused(change: Any, name: str) -> None:
    made = paged([(1, 3)], 2, 1, 16).make(torch.device("cpu"), torch.float32)
    with pytest.raises(BadArgument) as error:
        paged_attention(*change(*made.args[:3]), *made.args[3:])
    assert error.value.name == name

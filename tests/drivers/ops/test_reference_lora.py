"""The products of adapters equal the plain formula, token by token, however tokens and places are spread."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_products import check_products, check_slots, segments

from llmos.drivers.ops.reference_lora import (
    BATCHED_TOKENS, LAST, Segment, Slots, lora_expand, lora_shrink, segments_of,
)  # fmt: skip


@settings(max_examples=60)
@given(segments(), st.integers(1, 9), st.sampled_from((torch.float32, torch.bfloat16)))
def test_each_token_goes_through_its_own_adapter(found: list[Segment], rank: int, dtype: torch.dtype) -> None:
    check_products(lora_shrink, lora_expand, found, rank, dtype)


@settings(max_examples=40)
@given(st.lists(st.integers(-1, 9), min_size=1, max_size=9), st.sampled_from((0, 4)), st.integers(1, 9))
def test_slots_may_be_in_any_order(ids: list[int], first: int, rank: int) -> None:
    check_slots(lora_shrink, lora_expand, ids, first, rank, torch.float32)


def test_slots_are_read_when_a_product_is_made() -> None:
    ids = torch.tensor([0, -1], dtype=torch.int32)
    where, x, a = Slots(ids), torch.randn(2, 4), torch.randn(2, 3, 4)
    lora_shrink(x, a, where)
    ids.copy_(torch.tensor([1, 0]))
    torch.testing.assert_close(lora_shrink(x, a, where), torch.stack([a[1] @ x[0], a[0] @ x[1]]))


def test_neighbours_share_a_product_unless_one_is_long() -> None:
    short, long = 3, BATCHED_TOKENS + 1
    found = segments_of([Segment(0, 5, 5 + short), Segment(1, 8, 10), Segment(3, 10, 11), Segment(4, 11, 11 + long)])
    assert [(run.first, run.places, run.start, run.end) for run in found.runs] == [
        (0, 2, 5, 10), (3, 1, 10, 11), (4, 1, 11, 11 + long)
    ]  # fmt: skip
    assert (found.start, found.end, found.table.tolist()[2]) == (5, 11 + long, [3, 10, 11])


def test_segments_of_the_same_length_are_not_copied() -> None:
    equal, unequal = (segments_of([Segment(0, 0, 2), Segment(1, 2, end)]).runs[0] for end in (4, 5))
    assert equal.spread is None and equal.packed is None
    assert unequal.spread is not None and unequal.spread.tolist() == [0, 1, 0, 2, 3, 4]
    assert unequal.packed is not None and unequal.packed.tolist() == [0, 1, 3, 4, 5]


def test_one_segment_may_take_whatever_comes() -> None:
    found = segments_of([Segment(1, 0, LAST)])
    x, a = torch.randn(7, 4), torch.randn(2, 3, 4)
    assert torch.allclose(lora_shrink(x, a, found), x @ a[1].t())

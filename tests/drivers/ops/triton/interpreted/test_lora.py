"""The products of adapters in Triton: the contract of all implementations, however tokens and adapters are spread."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_products import check_products, check_slots, segments

from llmos.drivers.ops import reference_lora
from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.lora import cases
from llmos.drivers.ops.reference_lora import Segment, Slots, Where, segments_of
from llmos.drivers.ops.triton import lora
from llmos.syscalls.errors import BadArgument

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CPU = torch.device("cpu")


@pytest.mark.slow
@settings(max_examples=15)
@given(segments(), st.integers(1, 9), st.sampled_from(DTYPES))
def test_each_token_goes_through_its_own_adapter(found: list[Segment], rank: int, dtype: torch.dtype) -> None:
    check_products(lora.lora_shrink, lora.lora_expand, found, rank, dtype)


@settings(max_examples=15)
@given(
    st.lists(st.integers(-1, 9), min_size=1, max_size=40), st.sampled_from((0, 4)), st.integers(1, 20),
    st.sampled_from(DTYPES),
)  # fmt: skip
def test_slots_may_be_in_any_order(ids: list[int], first: int, rank: int, dtype: torch.dtype) -> None:
    check_slots(lora.lora_shrink, lora.lora_expand, ids, first, rank, dtype)


def test_a_long_sum_in_parts_is_the_same_bits_in_any_step() -> None:
    """Of tokens beside others, in a step of the same size."""
    x, a = torch.randn(6, 1500), torch.randn(3, 8, 1500)
    assert lora.shrink_config(6, 8, 1500).parts > 1
    ids = torch.tensor([0, 2, 1, -1, 2, 0], dtype=torch.int32)
    together = lora.lora_shrink(x, a, Slots(ids))
    torch.testing.assert_close(together, reference_lora.lora_shrink(x, a, Slots(ids)), rtol=1e-4, atol=1e-4)
    for place in range(3):
        alone = lora.lora_shrink(x, a, Slots(torch.where(ids == place, place, -1).int()))
        assert torch.equal(alone[ids == place], together[ids == place])


def test_prefill_takes_larger_blocks() -> None:
    small, large = lora.shrink_config(256, 16, 4096), lora.shrink_config(1024, 16, 4096)
    assert (small.tokens, large.tokens, large.parts) == (16, 64, 1)
    assert lora.shrink_config(1, 48, 4096).parts == 8
    x, a = torch.randn(520, 20), torch.randn(2, 4, 20)
    where = segments_of([Segment(0, 3, 260), Segment(1, 260, 520)])
    b, y = torch.randn(2, 4, 18), torch.randn(520, 18)
    hidden = lora.lora_shrink(x, a, where)
    torch.testing.assert_close(hidden, reference_lora.lora_shrink(x, a, where))
    wanted = y.clone()
    lora.lora_expand(y, hidden, b, where)
    reference_lora.lora_expand(wanted, hidden, b, where)
    torch.testing.assert_close(y, wanted)


@pytest.mark.parametrize("op", ["lora_shrink", "lora_expand"])
def test_an_adapter_too_far_would_be_seen(op: str) -> None:
    """What the cases are worth: the kernels, told the places of others, fail where somebody takes part."""

    def wrong(*given: Any, **options: Any) -> Any:
        *tensors, where = given
        return getattr(lora, op)(*tensors, shifted(where), **options)

    failed = {
        case.name for case in cases(tiny=True)
        if case.op == op and not check(case, wrong, getattr(reference_lora, op), CPU, "float32").ok
    }  # fmt: skip
    assert failed == {case.name for case in cases(tiny=True)} - {"nobody"}


def shifted(where: Where) -> Where:
    if isinstance(where, Slots):
        return Slots(torch.where(where.ids >= where.first, where.first + (where.ids - where.first + 1) % 4, where.ids))
    return segments_of([Segment((place + 1) % 4, start, end) for place, start, end in where.table.tolist()][:1])


def test_tensors_that_do_not_fit_are_refused() -> None:
    x, a, b, where = torch.randn(2, 8), torch.randn(2, 4, 8), torch.randn(2, 4, 6), Slots(torch.zeros(2).int())
    for wrong in (x[:, :7], x.half(), x.repeat(2, 1), torch.randn(8, 2).t()):
        with pytest.raises(BadArgument):
            lora.lora_shrink(wrong, a, where)
    with pytest.raises(BadArgument):
        lora.lora_shrink(x, a, segments_of([Segment(2, 0, 2)]))
    with pytest.raises(BadArgument):
        lora.lora_expand(torch.randn(2, 7), x[:, :4], b, where)


def test_no_tokens_are_no_launch() -> None:
    where = Slots(torch.zeros(0).int())
    assert lora.lora_shrink(torch.randn(0, 8), torch.randn(2, 4, 8), where).shape == (0, 4)
    lora.lora_expand(torch.randn(0, 6), torch.randn(0, 4), torch.randn(2, 4, 6), where)

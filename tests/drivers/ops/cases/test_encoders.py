"""Cases of the ops of encoders."""

from __future__ import annotations

import torch

from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.encoders import cases, packed, pooled
from llmos.drivers.ops.reference import pool_states
from llmos.drivers.ops.reference_attention import packed_attention

CPU = torch.device("cpu")


def test_a_row_that_sees_another_is_seen() -> None:
    case = packed([3, 5], 2, 2, 8, 8)
    assert check(case, packed_attention, packed_attention, CPU, "bfloat16").ok

    def blind(q, k, v, starts, scale):  # type: ignore[no-untyped-def]
        return packed_attention(q, k, v, starts[[0, 2]], scale)

    assert not check(case, blind, packed_attention, CPU, "bfloat16").ok


def test_pooling_that_counts_padding_is_seen() -> None:
    for how, left in (("mean", False), ("cls", True), ("last", False)):
        case = pooled([2, 5], 8, how, left)
        assert check(case, pool_states, pool_states, CPU, "float16").ok
        assert not check(case, lambda s, m, h: pool_states(s, m * 0 + 1, h), pool_states, CPU, "float16").ok


def test_there_are_cases_of_three_ops() -> None:
    assert {case.op for case in cases(True)} == {"replay", "pool_states", "packed_attention"}

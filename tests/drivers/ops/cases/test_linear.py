"""Cases of `linear`."""

from __future__ import annotations

import torch

from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.linear import cases, linear
from llmos.drivers.ops.linear import PlainLinear

CPU = torch.device("cpu")


def test_the_reference_is_right() -> None:
    assert all(check(case, PlainLinear, PlainLinear, CPU, dtype).ok for case in cases(True) for dtype in case.dtypes)


def test_a_forgotten_bias_and_a_wrong_order_are_seen() -> None:
    case = linear(3, 16, [8, 4], bias=True)
    assert not check(case, lambda weights, bias: PlainLinear(weights, None), PlainLinear, CPU, "bfloat16").ok
    assert not check(case, lambda weights, bias: PlainLinear(weights[::-1], bias), PlainLinear, CPU, "bfloat16").ok

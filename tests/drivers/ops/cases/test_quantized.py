"""Cases of `quantized_linear`."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.quantized import SCHEMES, cases, quantized
from llmos.drivers.ops.quantized_linear import ReferenceQuantized

CPU = torch.device("cpu")


def test_the_reference_is_right() -> None:
    for case in cases(True):
        assert all(check(case, ReferenceQuantized, ReferenceQuantized, CPU, dtype).ok for dtype in case.dtypes)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_other_activations_a_forgotten_bias_and_a_wrong_order_are_seen(scheme: object) -> None:
    case = quantized(scheme, 3, 140, [8, 4], "int8", bias=True)  # type: ignore[arg-type]
    wrong = (
        lambda weights, bias, dtype, activations: ReferenceQuantized(weights, bias, dtype, "model"),
        lambda weights, bias, dtype, activations: ReferenceQuantized(weights, None, dtype, activations),
        lambda weights, bias, dtype, activations: ReferenceQuantized(weights[::-1], bias, dtype, activations),
    )
    assert not any(check(case, each, ReferenceQuantized, CPU, "float32").ok for each in wrong)

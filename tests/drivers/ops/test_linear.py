"""Packed linear layers: what every one of them must do, and the two that need no compiler."""

from __future__ import annotations

import pytest
import torch
from packed_linears import check_linear

from llmos.drivers.ops.linear import OneDnnLinear, PlainLinear
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.reference import register_reference
from llmos.syscalls.errors import BadArgument

BFLOAT16 = {"device": "cpu", "dtype": "bfloat16"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_is_a_linear_layer(dtype: torch.dtype) -> None:
    check_linear(PlainLinear, dtype)


def test_weights_in_the_order_of_onednn_are_a_linear_layer() -> None:
    fits, reason = OneDnnLinear.supports(BFLOAT16)
    if not fits:
        pytest.skip(reason)
    check_linear(OneDnnLinear, torch.bfloat16)


def test_a_single_weight_is_shared_and_not_copied() -> None:
    weight = torch.randn(4, 3)
    assert PlainLinear([weight], None).packed.data_ptr() == weight.data_ptr()


def test_weights_that_do_not_fit_together_are_refused() -> None:
    for weights in ([], [torch.randn(2, 3), torch.randn(2, 4)], [torch.randn(3)]):
        with pytest.raises(BadArgument, match="expected"):
            PlainLinear(weights, None)


def test_the_table_has_a_linear_layer_for_every_case_and_says_why_not_a_faster_one() -> None:
    table = OpTable()
    register_reference(table)
    chosen = table.choose("linear", {"device": "cpu", "dtype": "float32"})
    assert chosen.implementation.call is PlainLinear
    assert chosen.refused == (("onednn", "it pays for bfloat16 on processors that multiply it"),)
    elsewhere = table.choose("linear", {"device": "cuda", "dtype": "bfloat16"})
    assert elsewhere.refused == (("onednn", "oneDNN is not there"),)

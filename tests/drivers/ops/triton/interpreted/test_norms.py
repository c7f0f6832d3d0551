"""Norms in Triton, beside the contract of all implementations (`test_contract`): what is refused, and left alone."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.ops import reference_layers as layers
from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.layers import rms
from llmos.drivers.ops.float8 import float8_rows
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.triton import float8, norms
from llmos.syscalls.errors import BadArgument, NotSupported

CPU = torch.device("cpu")
OPS = ("add", "rms_norm", "add_rms_norm", "rms_norm_float8", "add_rms_norm_float8", "layer_norm", "add_layer_norm")


@pytest.mark.slow
def test_many_short_rows_share_programs() -> None:
    assert norms.select_config(2048, 128).rows == 8 and norms.select_config(64, 4096) == (1, 4096, 8)
    for case in (rms(1030, 300, True, False, True),):
        assert check(case, getattr(norms, case.op), getattr(layers, case.op), CPU, "float32").ok


@pytest.mark.parametrize(
    ("count", "width", "dtype"),
    [
        (3, 40, torch.float32),
        pytest.param(17, 9, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(1030, 300, torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_narrow_rows_are_bit_for_bit_the_norms_rounded_after_them(count: int, width: int, dtype: torch.dtype) -> None:
    """So that a layer answers the same whether its norm rounds or its product does; rows that share programs, too."""
    x, residual = (torch.randn(count, width).to(dtype) for _ in range(2))
    weight = torch.randn(width).to(dtype)
    flags = dtype == torch.float32, dtype != torch.float32
    normed, total = norms.add_rms_norm(x, residual, weight, 1e-5, *flags)
    rows, same = norms.add_rms_norm_float8(x, residual, weight, 1e-5, *flags)
    alone = norms.rms_norm_float8(x, weight, 1e-5, *flags)
    assert torch.equal(same, total) and rows.shape == alone.shape == x.shape
    for found, wanted in ((rows, normed), (alone, norms.rms_norm(x, weight, 1e-5, *flags))):
        for after in (float8_rows(wanted), float8.rounded(wanted)):
            assert torch.equal(found.numbers.view(torch.uint8), after.numbers.view(torch.uint8))
            assert torch.equal(found.scale, after.scale)


def test_the_variance_of_rows_far_from_zero_is_not_lost() -> None:
    x = 1e4 + torch.randn(2, 64)
    wanted = layers.layer_norm(x.double(), None, None, 1e-5).float()
    torch.testing.assert_close(norms.layer_norm(x, None, None, 1e-5), wanted, atol=2e-3, rtol=0.0)


def test_what_is_added_stays_as_it_is_and_nothing_is_no_row() -> None:
    x, residual, weight = torch.randn(2, 16), torch.randn(2, 16), torch.ones(16)
    kept = x.clone(), residual.clone()
    norms.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(x, kept[0]) and torch.equal(residual, kept[1])
    assert norms.rms_norm(x[:0], weight, 1e-5).shape == norms.add(x[:0], x[:0]).shape == (0, 16)


def test_a_column_of_a_tensor_is_made_dense() -> None:
    x = torch.randn(16, 6).T
    torch.testing.assert_close(norms.rms_norm(x, torch.ones(16), 1e-5), layers.rms_norm(x, torch.ones(16), 1e-5))
    assert torch.equal(norms.add(x, x), x + x)


def test_what_does_not_fit_together_is_refused() -> None:
    x, weight = torch.randn(2, 16), torch.ones(16)
    for call in (
        lambda: norms.rms_norm(x, torch.ones(8), 1e-5), lambda: norms.rms_norm(x, weight.half(), 1e-5),
        lambda: norms.layer_norm(x, weight, torch.ones(32)[::2], 1e-5), lambda: norms.add(x, x[:1]),
        lambda: norms.add_rms_norm(x, x.half(), weight, 1e-5),
        lambda: norms.rms_norm(torch.randn(1, norms.WIDEST + 1), weight, 1e-5),
    ):  # fmt: skip
        with pytest.raises(BadArgument):
            call()
    with pytest.raises(NotSupported, match="no gradient"):
        norms.rms_norm(x, torch.nn.Parameter(weight), 1e-5)


def test_they_serve_what_kernels_serve() -> None:
    table = OpTable()
    norms.register(table)
    for op in OPS:
        assert table.choose(op, {"device": "cpu", "dtype": "bfloat16"}).implementation.name == "triton"

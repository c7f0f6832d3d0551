"""The contract of ops, for kernels in the interpreter: they agree with the reference on grid and drawn shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from op_shapes import SHAPES, wrong

from llmos.drivers.ops.cases.case import Case
from llmos.drivers.ops.cases.grid import grid
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.triton.ops import NAME, register_triton

DRAWN = 80
"""Shapes for each op: one takes the interpreter as long as a thousand take a compiler."""
QUICK: Mapping[str, Sequence[str]] = {
    "sample": ("9 rows of 300, 4 values", "2 rows of 600, 1 values", "rows of 30 that are not finite"),
    "experts": ("more experts than tokens", "experts elsewhere", "gpt-oss"),
    "quantized_linear": (
        "1x256 to 48, int4 group 64 shift, model", "1x256 to 48, int8 group 0, model",
        "5x200 to 24+8+8 and bias, int4 group 32, model", "5x200 to 24+8+8 and bias, int8 group 32 shift, model",
        "5x200 to 24+8+8 and bias, int4 group 64 shift, int8", "5x200 to 24+8+8 and bias, int8 group 0, int8",
        "3x128 to 32+16 and bias, float8 group 0, model", "3x128 to 32+16 and bias, float8 group 0, float8",
    ),
}  # fmt: skip
"""Of ops whose cases take longest, those that always run: each kernel, and each form of weights and inputs."""


def tables() -> OpTable:
    made = OpTable()
    register_reference(made)
    register_triton(made)
    return made


TABLE = tables()
OPS = [op for op in TABLE.ops() if NAME in TABLE.names(op)]
GRID = {(case.op, case.name): case for case in grid(tiny=True, ops=OPS)}
ALWAYS = [GRID[op, name] for op in OPS for name in QUICK.get(op, [name for of, name in GRID if of == op])]


def named(case: Case) -> str:
    return f"{case.op} {case.name}"


@pytest.mark.parametrize("case", ALWAYS, ids=named)
def test_kernels_agree_on_the_grid(case: Case) -> None:
    """In the finest dtype that kernels serve."""
    supports, device = TABLE.implementation(case.op, NAME).supports, torch.device("cpu")
    finest = next(dtype for dtype in case.dtypes if supports(case.asked(device, dtype))[0])
    assert not list(wrong(TABLE, replace(case, dtypes=(finest,)), (NAME,)))


@pytest.mark.slow
@pytest.mark.parametrize("case", GRID.values(), ids=named)
def test_kernels_agree_on_the_whole_grid_in_all_dtypes(case: Case) -> None:
    assert not list(wrong(TABLE, case, (NAME,)))


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_kernels_agree_at_drawn_shapes(op: str) -> None:
    @settings(max_examples=DRAWN)
    @given(SHAPES[op])
    def agrees(case: Case) -> None:
        assert not list(wrong(TABLE, case, (NAME,)))

    agrees()

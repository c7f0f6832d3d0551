"""The contract of ops, for kernels in the interpreter: they agree with the reference on grid and drawn shapes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from op_shapes import SHAPES, wrong

from llmos.drivers.ops.cases.case import Case
from llmos.drivers.ops.cases.grid import grid
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.triton.ops import NAME, register_triton

DRAWN = 4
"""Shapes for each op: one takes the interpreter as long as a thousand take a compiler."""


def tables() -> OpTable:
    made = OpTable()
    register_reference(made)
    register_triton(made)
    return made


TABLE = tables()
OPS = [op for op in TABLE.ops() if NAME in TABLE.names(op)]
GRID = list(grid(tiny=True, ops=OPS))


@pytest.mark.parametrize("case", GRID, ids=lambda case: f"{case.op} {case.name}")
def test_kernels_agree_on_the_grid(case: Case) -> None:
    assert not list(wrong(TABLE, case, (NAME,)))


@pytest.mark.parametrize("op", OPS)
def test_kernels_agree_at_drawn_shapes(op: str) -> None:
    @settings(max_examples=DRAWN)
    @given(SHAPES[op])
    def agrees(case: Case) -> None:
        assert not list(wrong(TABLE, case, (NAME,)))

    agrees()


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_kernels_agree_at_many_shapes(op: str) -> None:
    @settings(max_examples=20 * DRAWN)
    @given(SHAPES[op])
    def agrees(case: Case) -> None:
        assert not list(wrong(TABLE, case, (NAME,)))

    agrees()

"""The contract of ops: every implementation agrees with the reference, on the grid and at drawn shapes.

Kernels in Triton are held to it in their own process (`triton/interpreted/test_contract.py`).
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from op_shapes import SHAPES, UNDRAWN, wrong

from llmos.drivers.ops.cases.case import Case
from llmos.drivers.ops.cases.grid import grid
from llmos.drivers.ops.catalog import CATALOG
from llmos.drivers.ops.cpu.ops import register_native
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

GRID = list(grid(tiny=True))


def tables() -> OpTable:
    made = OpTable()
    register_reference(made)
    register_native(made)
    return made


TABLE = tables()


@pytest.mark.parametrize("case", GRID, ids=lambda case: f"{case.op} {case.name}")
def test_every_implementation_agrees_on_the_grid(case: Case) -> None:
    assert not list(wrong(TABLE, case, TABLE.names(case.op)))


@pytest.mark.parametrize("op", sorted(SHAPES))
def test_every_implementation_agrees_at_drawn_shapes(op: str) -> None:
    @given(SHAPES[op])
    def agrees(case: Case) -> None:
        assert not list(wrong(TABLE, case, TABLE.names(op)))

    agrees()


def test_every_op_is_drawn() -> None:
    assert set(SHAPES) | UNDRAWN == {op.name for op in CATALOG}


@pytest.mark.parametrize("op", sorted(SHAPES))
def test_an_implementation_that_does_nothing_is_found(op: str) -> None:
    made = OpTable()
    register_reference(made)
    made.register(op, "idle", lambda *args, **options: None, lambda spec: (True, ""))
    with contextlib.suppress(TypeError, AttributeError):  # a case that calls what was made, a judge that looks into it
        assert [found for case in GRID if case.op == op for found in wrong(made, case, ("idle",))]

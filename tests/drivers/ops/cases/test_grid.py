"""The grid has cases of every op of the catalog, each with a name of its own."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.ops.cases.case import Case, dtype_of
from llmos.drivers.ops.cases.grid import grid
from llmos.drivers.ops.catalog import CATALOG

TINY = list(grid(tiny=True))


def test_every_op_has_cases() -> None:
    assert {case.op for case in TINY} == {op.name for op in CATALOG}


def test_names_tell_cases_apart() -> None:
    names = [(case.op, case.name) for case in grid(tiny=False)]
    assert len(names) == len(set(names))


def test_one_op_can_be_picked() -> None:
    assert {case.op for case in grid(tiny=True, ops=["linear"])} == {"linear"}


@pytest.mark.parametrize("case", TINY, ids=lambda case: f"{case.op} {case.name}")
def test_a_case_makes_the_same_numbers_twice(case: Case) -> None:
    kind = dtype_of(case.dtypes[0])
    one, other = (case.make(torch.device("cpu"), kind) for _ in range(2))
    for a, b in zip(one.args, other.args, strict=True):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))

"""Kernels in the op table: every module of them, beside the reference, and everything that they launch."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from llmos.drivers.ops.catalog import CATALOG
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.triton.ops import MODULES, NAME, register_triton, variants


def test_kernels_are_asked_before_the_reference_and_serve_ops_of_the_catalog() -> None:
    made = OpTable()
    register_reference(made)
    before = set(made.ops())
    register_triton(made)
    assert set(made.ops()) == before == {op.name for op in CATALOG}
    served = [op for op in made.ops() if NAME in made.names(op)]
    assert len(served) > 10
    assert all(made.names(op)[0] == NAME and made.names(op)[-1] == "torch" for op in served)


def test_every_module_says_what_it_launches() -> None:
    assert all(module.VARIANTS for module in MODULES)
    assert len(variants()) == sum(len(module.VARIANTS) for module in MODULES)

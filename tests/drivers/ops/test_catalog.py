"""The catalog describes every op that a device registers, with the arguments that its reference takes."""

from __future__ import annotations

import inspect

import pytest

from llmos.drivers.ops.catalog import CATALOG, DTYPES, Op, find, serving
from llmos.drivers.ops.cpu.ops import register_native
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable


@pytest.fixture(scope="module")
def table() -> OpTable:
    made = OpTable()
    register_reference(made)
    return made


def test_the_catalog_names_what_the_reference_registers(table: OpTable) -> None:
    assert {op.name for op in CATALOG} == set(table.ops())
    assert len(CATALOG) == len({op.name for op in CATALOG})


@pytest.mark.parametrize("op", CATALOG, ids=lambda op: op.name)
def test_arguments_are_those_of_the_reference(op: Op, table: OpTable) -> None:
    taken = list(inspect.signature(table.implementation(op.name, "torch").call).parameters)
    assert [argument.name for argument in op.arguments] == taken
    assert find(op.name) is op


def test_who_serves_and_why_others_do_not(table: OpTable) -> None:
    made = OpTable()
    register_reference(made)
    made.register("add", "half", lambda x, residual: x, lambda spec: (spec["dtype"] == "float16", "only halves"))
    made.register("own", "picky", lambda: None, lambda spec: (False, "never"))
    found = serving(made, "cpu")
    assert found["add"]["float16"] == {"serves": "half", "others": ["torch"], "refused": {}}
    assert found["add"]["float32"] == {"serves": "torch", "others": [], "refused": {"half": "only halves"}}
    assert found["own"]["float32"] == {"serves": "", "others": [], "refused": {"picky": "never"}}
    assert all(set(of) == set(DTYPES) for of in found.values())


def test_usual_cases_are_those_that_native_ops_take() -> None:
    """What a provider is asked in an overview is what an engine asks: nothing is refused for a missing key."""
    made = OpTable()
    register_reference(made)
    native = register_native(made)
    fits, why = native.supports({"device": "cpu", "dtype": "float32"})
    if not fits:
        pytest.skip(why)
    found = serving(made, "cpu")
    assert found["paged_attention"]["float32"]["serves"] == "native"
    assert found["paged_attention"]["float16"]["serves"] == "torch"


def test_usual_cases_are_those_that_kernels_take_on_a_gpu() -> None:
    pytest.importorskip("triton")
    from llmos.drivers.ops.triton.ops import NAME, register_triton

    made = OpTable()
    register_reference(made)
    register_triton(made)
    found = serving(made, "cuda")
    kernels = {op: of for op, of in found.items() if NAME in made.names(op)}
    assert {"paged_attention", "rope_write", "add_rms_norm", "sample", "lora_expand", "experts"} <= set(kernels)
    assert {(op, dtype): served["serves"] for op, of in kernels.items() for dtype, served in of.items()} == {
        (op, dtype): NAME for op in kernels for dtype in DTYPES
    }
    assert all(served["refused"] for of in (serving(made, "cpu")[op] for op in kernels) for served in of.values())

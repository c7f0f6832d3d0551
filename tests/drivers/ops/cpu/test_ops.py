"""The ops in C++ in a table: chosen before the others, and refused with a reason where they cannot serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.drivers.ops.cpu import build
from llmos.drivers.ops.cpu.native import Native
from llmos.drivers.ops.cpu.ops import NAME, PART, register_native
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

OPS = (
    "paged_attention", "packed_attention", "linear", "write_kv", "rms_norm", "add_rms_norm", "silu_mul", "gelu_mul",
    "gelu_tanh_mul", "rope", "rope_write", "add", "replay", "lora_shrink", "lora_expand",
)  # fmt: skip
SPEC = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def table() -> OpTable:
    made = OpTable()
    register_reference(made)
    register_native(made)
    return made


@pytest.mark.parametrize("op", OPS)
def test_each_is_chosen_for_what_it_serves_and_the_reference_for_the_rest(
    op: str, table: OpTable, native: Native
) -> None:
    assert table.choose(op, SPEC).implementation.name == NAME
    chosen = table.choose(op, {"device": "cpu", "dtype": "float64"})
    assert chosen.implementation.name == "torch"
    assert (NAME, "it computes in bfloat16 or float32, not float64") in chosen.refused


def test_quantized_layers_are_served_by_the_whole_library_or_else_by_their_own(
    table: OpTable, native: Native, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = {**SPEC, "kind": "int", "activations": "int8"}
    assert table.choose("quantized_linear", spec).implementation.name == NAME
    refused = table.choose("quantized_linear", {**spec, "activations": "model"}).refused
    assert [name for name, _ in refused] == [NAME, PART]
    info = tmp_path / "cpuinfo"
    info.write_text("flags : avx2 f16c fma\n")
    monkeypatch.setattr(build, "CPU_INFO", info)
    older = OpTable()
    register_reference(older)
    register_native(older)
    assert older.choose("linear", SPEC).implementation.name == "torch"
    assert older.choose("quantized_linear", spec).implementation.name == PART


def test_without_a_processor_for_them_nothing_is_compiled(
    table: OpTable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "CPU_INFO", tmp_path / "none")
    chosen = table.choose("paged_attention", SPEC)
    assert chosen.implementation.name == "torch" and "the processor has no" in chosen.refused[0][1]

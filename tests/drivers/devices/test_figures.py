"""Sharing out what a process holds; and that plan, allocator and system count the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from slow_cases import slow_but
from tiny_models import build, byte_level, silent, source_of

from llmos.drivers.contract import LoadSettings, Row
from llmos.drivers.devices.figures import shared_out
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

MIB = 1 << 20
WEIGHTS = Row("weights", "m", predicted=100 * MIB, allocator=100 * MIB)
PAGES = Row("kv", "m", predicted=50 * MIB, allocator=50 * MIB)
ASLEEP = Row("kv", "n", allocator=20 * MIB, driver=20 * MIB, device="host")


def figures(rows: Sequence[Row]) -> list[int]:
    return [row.driver // MIB for row in rows]


def test_each_row_has_what_is_there_of_it_and_the_rest_is_the_devices_own() -> None:
    found = shared_out([WEIGHTS, PAGES], 160 * MIB, {("kv", "m"): 40 * MIB}, "cpu0", True)
    assert figures(found) == [100, 10, 50]
    assert (found[-1].what, found[-1].owner, found[-1].allocator) == ("runtime", "cpu0", 0)
    assert found[-1].device == "host", "it counts against the machine, not against what models may have"


def test_rows_are_scaled_down_to_what_the_process_has_grown_by() -> None:
    assert figures(shared_out([WEIGHTS, PAGES], 75 * MIB, {}, "cpu0", True)) == [50, 25, 0]
    assert figures(shared_out([], 5 * MIB, {}, "cpu0", True)) == [5]


def test_what_lies_on_the_host_is_part_of_a_process_only_where_the_device_is_the_host() -> None:
    assert figures(shared_out([WEIGHTS, ASLEEP], 130 * MIB, {}, "cpu0", True)) == [100, 20, 10]
    found = shared_out([WEIGHTS, ASLEEP], 130 * MIB, {}, "cuda0", False)
    assert figures(found) == [100, 20, 30] and found[1] == ASLEEP
    assert (found[-1].what, found[-1].device) == ("workspace", "")


@given(st.lists(st.integers(0, 1 << 40), max_size=5), st.integers(0, 1 << 40))
def test_the_figures_add_up_to_what_is_held_and_none_is_negative(sizes: list[int], held: int) -> None:
    rows = [Row("weights", f"m{at}", allocator=size) for at, size in enumerate(sizes)]
    found = shared_out(rows, held, {("weights", "m0"): sum(sizes[:1]) // 2}, "cpu0", True)
    assert min(row.driver for row in found) >= 0
    assert sum(row.driver for row in found) == held


# ---- plan, allocator and system agree

SMALL = 16 << 10
"""What may differ for tiny models, as 64 MiB may for real ones."""
SHAPES = ("llama", "qwen2", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "opt", "phi3", "bloom", "mixtral")
WAYS: Sequence[Mapping[str, Any]] = (
    *({"width": width, "group": group, "shift": shift}
      for width in (4, 8) for group in (0, 32, 64) for shift in (False, True)),
    {"kind": "float", "group": 0},
    {"width": 4, "group": 32, "head": 16},
    {"width": 8, "group": 32, "activations": "int8"},
)  # fmt: skip
DISTINCT = ({"width": 4, "group": 32, "shift": True}, {"kind": "float", "group": 0})
"""Numbers of 4 bits with all that may lie beside them, and those that are stored as they are."""


def agree(figures: Iterable[int], bound: int) -> bool:
    """Within 3 %, or the bound where that is more."""
    known = list(figures)
    return max(known) - min(known) <= max(0.03 * max(known), bound)


@pytest.fixture(scope="module")
def ops() -> OpTable:
    table = OpTable()
    register_reference(table)
    return table


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("name", SHAPES)
def test_models_take_what_was_planned(ops: OpTable, tmp_path: Path, name: str) -> None:
    check_plan(Engine(ops), build(tmp_path, name), LoadSettings())


@pytest.mark.parametrize("way", slow_but(DISTINCT, WAYS), ids=str)
def test_quantized_models_take_what_was_planned(ops: OpTable, llama: Path, way: Mapping[str, Any]) -> None:
    check_plan(Engine(ops), llama, LoadSettings(quant=way))


def test_pages_of_narrow_numbers_take_what_was_planned(ops: OpTable, llama: Path) -> None:
    check_plan(Engine(ops), llama, LoadSettings(kv_dtype="int8"))


def check_plan(engine: Engine, folder: Path, settings: LoadSettings) -> None:
    planned = {row.what: row.predicted for row in engine.plan(source_of(folder), settings)}
    loaded = engine.load("m", source_of(folder), settings, silent)
    engine.unload("m")
    for row in loaded.rows:
        assert row.predicted == planned[row.what], (row, settings)
        if row.what == "weights" or (row.what == "kv" and loaded.rung == "P"):
            assert agree((row.predicted, row.allocator), SMALL), (row, settings)


@pytest.mark.slow
def test_what_belongs_to_no_model_does_not_grow_with_loads(tmp_path: Path) -> None:
    """What the first models bring in (libraries) stays; what each takes goes with it."""
    asked = [sys.executable, "-c", CYCLES, str(build(tmp_path))]
    ended = subprocess.run(asked, env=environ(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    rest = json.loads(ended.stdout)
    assert max(rest[3:]) <= rest[2] + 8 * MIB, [count // MIB for count in rest]


CYCLES = """
import json, sys
from pathlib import Path
from llmos.drivers.contract import LoadSettings
from llmos.drivers.devices.cpu import CpuDevice
from tiny_models import PROMPT, ask, choice, silent, source_of
device = CpuDevice()
device.start("cpu0", 1, {})
rest = []
for cycle in range(20):
    device.load("m", source_of(Path(sys.argv[1])), LoadSettings(), silent)
    choice(device, ask(PROMPT, f"r{cycle}", max_tokens=3))
    device.sleep("m")
    device.wake("m", silent)
    device.unload("m")
    (row,) = device.memory()
    rest.append(row.driver)
print(json.dumps(rest))
"""
LARGE: Mapping[str, Mapping[str, Any]] = {
    "llama-135m": {
        "kind": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
    },
    "qwen2-0.5b": {
        "kind": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "gpt2": {"kind": "gpt2"},
    "opt-125m": {"kind": "opt"},
    "pythia-160m": {
        "kind": "gpt_neox", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "vocab_size": 50304,
    },
}  # fmt: skip
QUANT: Mapping[str, Mapping[str, Any] | None] = {
    "as it is": None, "w8": {"width": 8, "group": 128}, "w4": {"width": 4, "group": 64},
}  # fmt: skip
LOADING = """
import json, sys
from pathlib import Path
from llmos.drivers.contract import LoadSettings
from llmos.drivers.devices.cpu import CpuDevice
from llmos.drivers.engine.memory import tensors_of
from tiny_models import silent, source_of
device = CpuDevice()
device.start("cpu0", 1, {})
device.load("m", source_of(Path(sys.argv[1])), LoadSettings(quant=json.loads(sys.argv[2])), silent)
resident = device._running()._entries["m"].awake()
for tensor in resident.runners[0].pages:
    tensor.fill_(0)
for tensor in tensors_of(resident.bundle.module):
    tensor if tensor.is_mkldnn else tensor.flatten()[::512].float().sum()
device._changing()
rows = [row for row in device.memory() if row.owner == "m"]
print(json.dumps([[sum(getattr(row, name) for row in rows) for name in ("predicted", "allocator", "driver")]]))
"""


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def large(folder: Path, kind: str, **fields: Any) -> Path:
    """A model of a real shape, in bfloat16, with any weights."""
    config = transformers.AutoConfig.for_model(kind, **{"max_position_embeddings": 2048, **fields})
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    module = module.to_empty(device="cpu")
    noise = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0)).bfloat16() * 0.02
    with torch.no_grad():
        for parameter in module.parameters():
            flat = parameter.view(-1)
            flat.copy_(noise.repeat(-(-len(flat) // len(noise)))[: len(flat)])
    module.tie_weights()
    module.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LARGE)
def test_real_shapes_take_what_was_planned_by_every_count(tmp_path: Path, name: str) -> None:
    """With every page of cache written, and every page of a file read: all that the plan allows for."""
    fields = dict(LARGE[name])
    folder = large(tmp_path, fields.pop("kind"), **fields)
    for way, quant in QUANT.items():
        asked = [sys.executable, "-c", LOADING, str(folder), json.dumps(quant)]
        ended = subprocess.run(asked, env=environ(), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-2000:]
        (figures,) = json.loads(ended.stdout)
        assert agree(figures, 64 * MIB), (name, way, [count // MIB for count in figures])

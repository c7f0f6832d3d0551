"""Whole transformations of a model of 300 MB, each in a process of its own: memory stays at a few of its layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from load_peak import TESTS, load_peak
from tiny_models import byte_level, silent, source_of

from llmos.drivers.engine import checkpoint
from llmos.drivers.transform import kinds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is not told here"),
]

MIB = 1 << 20
LAYERS, LAYER_MIB, MODEL_MIB = 24, 12, 294
FEW_MIB, TABLES_MIB = 4 * LAYER_MIB, 16

WORK = """
import json, sys
from pathlib import Path
from llmos.drivers.filesystems.models.bring import gguf_weights
from llmos.drivers.transform import kinds
from tiny_models import silent, source_of

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def made(sources, out):
    out.mkdir()
    if recipe["kind"] == "import":
        gguf_weights.write(top / sources[0] / "model.gguf", "model.gguf", out, "llama", True, silent)
    else:
        kinds.find(recipe["kind"])[1]([source_of(top / name) for name in sources], recipe, out, silent)

top, recipe = Path(sys.argv[1]), json.loads(sys.argv[2])
made(json.loads(sys.argv[3]), Path(sys.argv[5]) / "small")
before = status("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
made(json.loads(sys.argv[4]), Path(sys.argv[5]) / "out")
print(json.dumps([status("VmHWM:") - before, status("VmRSS:") - before]))
"""
"""A small model first, so that code and tables are there."""

QUANT: Mapping[str, Any] = {"width": 4, "group": 128}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of many layers in several files, two of one layer, and text."""
    top = tmp_path_factory.mktemp("models")
    for seed, (name, layers) in enumerate({"one": LAYERS, "other": LAYERS, "small": 1, "smaller": 1}.items()):
        torch.manual_seed(seed)
        config = transformers.LlamaConfig(
            vocab_size=2048, hidden_size=768, intermediate_size=2048, num_hidden_layers=layers, num_attention_heads=12,
            num_key_value_heads=4, max_position_embeddings=128, tie_word_embeddings=False, eos_token_id=None,
        )  # fmt: skip
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        module.save_pretrained(top / name, max_shard_size="60MB")
        byte_level().save_pretrained(top / name)
    (top / "text").mkdir()
    (top / "text/notes.txt").write_text("the quick brown fox jumps over the lazy dog; " * 60)
    weights = checkpoint.check_weights(source_of(top / "one"))
    assert len(weights.files) > 3 and weights.bytes > MODEL_MIB * MIB
    return top


@pytest.mark.parametrize(
    ("recipe", "others", "constant"),
    [
        pytest.param({"kind": "quantize", "quant": QUANT}, ["text"], 112, id="nearest"),
        pytest.param({"kind": "quantize", "quant": {"width": 8}}, ["text"], 112, id="nearest-8"),
        pytest.param({"kind": "quantize", "quant": {**QUANT, "method": "gptq"}}, ["text"], 240, id="gptq"),
        pytest.param({"kind": "prune", "sparsity": 0.5}, [], 112, id="magnitude"),
        pytest.param({"kind": "prune", "method": "wanda", "sparsity": 0.5}, ["text"], 112, id="wanda"),
        pytest.param({"kind": "prune", "method": "heads", "sparsity": 0.5}, [], 20, id="heads"),
        pytest.param({"kind": "merge"}, ["other"], 80, id="linear"),
        pytest.param({"kind": "merge", "method": "ties"}, ["other"], 150, id="ties"),
    ],
)
def test_memory_is_a_few_layers_and_what_working_on_one_takes(
    models: Path, tmp_path: Path, recipe: Mapping[str, Any], others: list[str], constant: int
) -> None:
    """`constant`: MiB that do not depend on how many layers there are: a shard's share, and a method's own matrices."""
    small = ["smaller" if name == "other" else name for name in others]
    peak = peak_of(models, recipe, ["small", *small], ["one", *others], tmp_path)
    assert peak < (FEW_MIB + constant) * MIB, f"{peak >> 20} MiB at the peak for a model of {MODEL_MIB} MiB"


def test_a_gguf_file_is_imported_and_loaded_in_little_more_than_what_stays(
    models: Path, llama_files: Path, tmp_path: Path
) -> None:
    """One of 8 bits, 160 MB: as a transformation of it, and then as a load of what that made."""
    peak = peak_of(llama_files, {"kind": "import"}, ["small"], ["one"], tmp_path)
    assert peak < (FEW_MIB + 80) * MIB, f"{peak >> 20} MiB at the peak of an import"
    for name in ("small", "out"):
        byte_level().save_pretrained(tmp_path / name)
    found = load_peak(tmp_path / "small", tmp_path / "out")
    print(f"peak {found.peak >> 20} MiB, {found.stays >> 20} stay, {found.held >> 20} are weights")
    assert found.rung == "P" and 140 * MIB < found.held < MODEL_MIB * MIB * 0.6
    assert found.peak < 1.1 * found.stays + TABLES_MIB * MIB, f"{found.peak >> 20} MiB for {found.stays >> 20}"


@pytest.fixture(scope="module")
def llama_files(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models as GGUF files."""
    top = tmp_path_factory.mktemp("files")
    for name in ("small", "one"):
        (top / name).mkdir()
        kinds.find("export")[1]([source_of(models / name)], {"format": "gguf-q8_0"}, top / name, silent)
    return top


def peak_of(top: Path, recipe: Mapping[str, Any], first: list[str], then: list[str], out: Path) -> int:
    """Bytes that the second transformation takes at the peak, above what the first one left."""
    environ = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    given = [str(top), json.dumps(recipe), json.dumps(first), json.dumps(then), str(out)]
    told = subprocess.run([sys.executable, "-c", WORK, *given], env=environ, capture_output=True, text=True, check=True)
    peak, after = json.loads(told.stdout.splitlines()[-1])
    print(f"peak {peak >> 20} MiB, {after >> 20} MiB afterwards")
    return int(peak)

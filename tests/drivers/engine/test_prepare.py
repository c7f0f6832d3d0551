"""A model with faster parts, or the one of its files when those change what it answers; what loading takes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import byte_level, silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import loader, prepare
from llmos.drivers.ops.table import OpTable


MOST = 1.15
"""Memory at the peak of a load, as a share of what the loaded model takes."""

LOADING = """
import json, sys
from pathlib import Path
from llmos.drivers.contract import LoadSettings
from llmos.drivers.devices.cpu import CpuDevice
from tiny_models import silent, source_of

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

device = CpuDevice()
device.start("cpu0", 1, {})
settings = LoadSettings(dtype=sys.argv[3])
device.load("small", source_of(Path(sys.argv[1])), settings, silent)
device.unload("small")
before = status("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
model = device.load("m", source_of(Path(sys.argv[2])), settings, silent)
held = sum(row.allocator for row in device.memory())
print(json.dumps([status("VmHWM:") - before, held, model.rung]))
"""


def test_a_causal_model_comes_with_its_trial(ops: OpTable, llama: Path) -> None:
    bundle, trial = prepare.prepared(source_of(llama), LoadSettings(), ops, silent)
    assert trial is not None and trial.unchanged() and bundle.about.causal


def test_others_come_as_they_are(ops: OpTable, bert: Path) -> None:
    bundle, trial = prepare.prepared(source_of(bert), LoadSettings(), ops, silent)
    assert trial is None and not bundle.about.causal


def test_what_answers_differently_is_dropped_before_it_is_loaded_again(
    ops: OpTable, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, alive, spoilt = loader.load, [], []

    def load(*given: Any, **named: Any) -> Any:
        gc.collect()
        alive.append(sum(each() is not None for each in spoilt))
        bundle = real(*given, **named)
        spoilt.append(weakref.ref(bundle.module))
        return bundle

    monkeypatch.setattr(prepare.loader, "load", load)
    monkeypatch.setattr(prepare, "operate", lambda module, *_: module.lm_head.weight.mul_(2))
    _, trial = prepare.prepared(source_of(llama), LoadSettings(), ops, silent)
    assert alive == [0, 0] and trial is not None and trial.unchanged()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is not told here")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_peak_of_a_load_is_near_the_size_of_the_model(
    llama: Path, tmp_path: Path, root: Path, dtype: str
) -> None:
    """220 MB of bfloat16 in two files, as they are or converted, in a process that has loaded a small model before, so
    that code is there.
    """
    sizes: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 10}
    config = transformers.Qwen2Config(
        vocab_size=32_000, num_attention_heads=12, num_key_value_heads=4, max_position_embeddings=512,
        tie_word_embeddings=False, **sizes,
    )  # fmt: skip
    module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    stored = sum(parameter.nbytes for parameter in module.parameters())
    module.save_pretrained(tmp_path, max_shard_size="120MB")
    byte_level().save_pretrained(tmp_path)
    del module
    assert len(list(tmp_path.glob("*.safetensors"))) == 2 and stored > 200e6
    environ = {**os.environ, "PYTHONPATH": str(root / "tests"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOADING, str(llama), str(tmp_path), dtype]
    told = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=300).stdout
    peak, held, rung = json.loads(told.splitlines()[-1])
    weights = stored * getattr(torch, dtype).itemsize // torch.bfloat16.itemsize
    assert rung == "P" and weights < held < 1.4 * weights
    assert peak < MOST * held, f"{peak / held:.2f} of the size of the model"

"""Kernels against what the interpreter made of the same inputs: what differs is found, and what is right is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu import checks
from gpu.setting import Setting

pytest.importorskip("triton")

COMPARING = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gpu import checks, interpret
from gpu.setting import Setting
import torch

every = {}
for case in checks.grid(tiny=True):
    every.setdefault(case.op, case)
checks.grid = lambda tiny: every.values()
setting = Setting("cpu", True, Path(sys.argv[2]))
kept = setting.folder / checks.KEPT
interpret.main(kept)
(right,) = checks.interpreted(setting)
found = torch.load(kept, weights_only=True)
found["add/" + every["add"].name + "/float32"][0] += 1.0
torch.save(found, kept)
(changed,) = checks.interpreted(setting)
print(json.dumps([sorted({key.partition("/")[0] for key in found}), right, changed]))
"""


@pytest.mark.slow
def test_what_the_interpreter_made_is_compared_and_a_difference_is_found(tmp_path: Path) -> None:
    """In the interpreter on both sides, as there is no other here; one case of each op."""
    command = [sys.executable, "-c", COMPARING, str(Path(checks.__file__).parents[1]), str(tmp_path)]
    environ = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ops, right, changed = json.loads(done.stdout)
    assert {"add", "experts", "lora_expand", "paged_attention", "rms_norm", "rope_write", "sample"} <= set(ops)
    assert right["compared"] == right["interpreted"] >= len(ops) and right["wrong"] == []
    assert [(each["op"], each["dtype"]) for each in changed["wrong"]] == [("add", "float32")]


def test_comparing_nothing_on_a_gpu_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"add/one/float32": ["the interpreter cannot"]}, tmp_path / checks.KEPT)
    monkeypatch.setattr(checks, "triples", lambda *_given, **_named: ())
    (found,) = checks.interpreted(Setting("cpu", True, tmp_path))
    assert (found["interpreted"], found["compared"]) == (0, 0)
    assert found["left_out"] == {"add/one/float32": "the interpreter cannot"}
    with pytest.raises(RuntimeError, match="no kernel was compared"):
        list(checks.interpreted(Setting("cuda", True, tmp_path)))

"""Tables of choices: made in the interpreter, where there is no GPU, and read by the kernels that they are for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpu import quantized

pytest.importorskip("triton")

TUNING = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gpu import quantized
from gpu.setting import SHAPES
from llmos.drivers.ops.triton import quantized_choice as choices

quantized.GAIN = 99.0  # what is planned is kept, too
quantized.layers_of = lambda shape: [(48, 64), (20, 128)]
path = choices.TABLE = Path(sys.argv[2])
for kind in ("w4a16-g128", "w8a8-g128"):
    quantized.main([kind, "--tokens", "1", "16", "--tiny", "--device", "cpu", "--keep", str(path)])
keys = [choices.Layer(outs, ins, width, 128, inputs).key
        for outs, ins, width, inputs in ((48, 64, 4, "model"), (20, 128, 8, "int8"))]
read = choices.measured("cpu")
print(json.dumps([sorted(read), [[choices.told(read[key][tokens]) for tokens in (1, 16)] for key in keys]]))
"""


def test_what_was_found_is_put_beside_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    quantized.keep(path, "one", "a layer", {"1": {"way": "gemv"}})
    quantized.keep(path, "one", "a layer", {"16": {"way": "gemm"}})
    quantized.keep(path, "two", "a layer", {})
    assert json.loads(path.read_text()) == {
        "one": {"a layer": {"1": {"way": "gemv"}, "16": {"way": "gemm"}}}, "two": {"a layer": {}},
    }  # fmt: skip


@pytest.mark.slow
def test_a_table_is_made_and_read(tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    command = [sys.executable, "-c", TUNING, str(Path(quantized.__file__).parents[1]), str(path)]
    environ = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    keys, read = json.loads(done.stdout.splitlines()[-1])
    assert len(keys) == 4 and len(json.loads(path.read_text())["cpu"]) == 4
    assert all(way["way"] in ("gemv", "gemm", "whole") for layer in read for way in layer)
    assert {way["way"] for way in read[1]} == {"gemm"}  # of whole numbers on both sides

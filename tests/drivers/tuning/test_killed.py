"""A process that is killed in the middle of training leaves what another goes on from, and the end is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_CHILD = """
import hashlib, sys
from pathlib import Path
import torch, tuning_runs
from llmos.drivers.tuning.checkpoint import Checkpoints
from llmos.drivers.tuning.data.batches import Batches
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.trainer import train
from llmos.drivers.tuning.training import Training

torch.set_num_threads(1)
options = {"accumulation": 2, "evaluate_every": 3, "early_stopping": 9}
recipe = tuning_runs.recipe(max_steps=12, dropout=0.3, eval_fraction=0.1, checkpoint_every=1, options=options)
module = tuning_runs.lora(tuning_runs.llama(), 0.3)
held_out = tuple(Batches(tuning_runs.sentences(3, seed=5), recipe, shuffled=False))

def tell(entry):
    print(entry.stage, entry.step, entry.values.get("loss", ""), flush=True)

store = Checkpoints(Path(sys.argv[1]), {"recipe": "one"})
train(Training(module, Causal(), recipe, tuning_runs.batches(recipe), held_out, progress=tell, checkpoints=store))
digest = hashlib.sha256()
for name, value in sorted(module.named_parameters()):
    digest.update(value.detach().numpy().tobytes())
print("end", digest.hexdigest(), flush=True)
"""


def begun(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder)], env=environment, stdout=subprocess.PIPE, text=True
    )


def told(folder: Path) -> list[str]:
    """What a run says that nobody disturbs."""
    child = begun(folder)
    said, _ = child.communicate()
    assert child.returncode == 0
    return said.splitlines()


def killed(folder: Path, line: str) -> None:
    """A run, until it has said this."""
    child = begun(folder)
    assert child.stdout is not None
    with child.stdout:
        assert any(said.startswith(line) for said in child.stdout)
        child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def steps(lines: list[str]) -> dict[str, str]:
    """Losses by step."""
    return {line.split()[1]: line.split()[2] for line in lines if line.startswith("train")}


@pytest.mark.slow
def test_what_a_killed_process_began_another_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Killed four times in one run: as soon as a checkpoint is there, in an evaluation, and within a step."""
    whole = told(tmp_path / "whole")
    folder = tmp_path / "cut"
    for line in ("checkpoint 1", "train 3", "evaluate 6", "checkpoint 10"):
        killed(folder, line)
    rest = told(folder)
    assert rest[-1] == whole[-1] and rest[-1].startswith("end")
    theirs, ours = steps(whole), steps(rest)
    assert 1 <= len(ours) <= 2 and ours == {step: theirs[step] for step in ours}
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]

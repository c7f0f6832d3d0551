"""All kernels in Triton's interpreter, in one process with the flag."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"


NO_TESTS = 5


def interpreted(*options: str, fine: frozenset[int] = frozenset({0})) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(FOLDER), *options]
    environment = {**kept, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode in fine, done.stdout[-8000:]


@pytest.mark.timeout(600)
def test_kernels_in_the_interpreter() -> None:
    interpreted("-m", "not slow", "--hypothesis-profile=quick")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernels_in_the_interpreter_at_length() -> None:
    interpreted("-m", "slow", fine=frozenset({0, NO_TESTS}))

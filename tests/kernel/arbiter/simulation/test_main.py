"""`python -m llmos.kernel.arbiter.simulation`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from llmos.kernel.arbiter.simulation.__main__ import main


def test_results_as_json_and_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bursty", "loop", "--seeds", "7,8", "--requests", "50", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["trace"], row["seed"]) for row in rows] == [("bursty", 7), ("bursty", 8), ("loop", 7), ("loop", 8)]
    assert main(["bursty", "--seeds", "7", "--requests", "50"]) == 0
    assert capsys.readouterr().out.startswith("bursty: 50 requests, seeds 7\n")


@pytest.mark.parametrize("argv", [["nothing"], ["--seeds", "x"], ["--requests", "0"]])
def test_what_cannot_be_replayed_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2 and argv[-1] in capsys.readouterr().err


def test_it_is_a_program() -> None:
    argv = [sys.executable, "-m", "llmos.kernel.arbiter.simulation", "loop", "--seeds", "7", "--requests", "50"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("loop: 50 requests, seeds 7\n")

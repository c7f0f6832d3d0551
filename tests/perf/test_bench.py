"""The benches of the engine run, on tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PERF = Path(__file__).resolve().parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_quick_run_has_a_figure_for_every_peer_and_aim(tmp_path: Path) -> None:
    command = [
        sys.executable, str(PERF / "bench.py"), "engine", "--quick", "--threads", "1", "--folder", str(tmp_path),
        "--peers", "ours,ours-kernel,generate,generate-static,generate-batch", "--save-to", str(tmp_path / "raw.json"),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    raw = json.loads((tmp_path / "raw.json").read_text())
    seen = {(cell["suite"], cell["peer"]) for cell in raw["cells"]}
    peers = {"ours", "ours-kernel", "generate", "generate-static", "generate-batch"}
    assert seen >= {(suite, peer) for suite in ("requests", "arrivals", "prefill") for peer in peers}
    assert {suite for suite, _ in seen} >= {"prefix", "gap", "adapters", "overhead", "encoder", "attention"}
    assert all(cell["median"] > 0 for cell in raw["cells"])
    names = " ".join(row["name"] for row in raw["rows"])
    assert all(f"C{number} " in names for number in (1, 2, 7, 8, 9, 10))
    assert raw["about"]["tiny"]["left out"] == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quick_run_of_tuning_has_a_figure_for_every_aim(tmp_path: Path) -> None:
    command = [
        sys.executable, str(PERF / "bench.py"), "tuning", "--quick", "--threads", "1", "--folder", str(tmp_path),
    ]  # fmt: skip
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for name in ("LoRA", "most memory", "p95", "p99", "time left that a job got", "beside the weights", "8 trials",
                 "steps lost by a crash"):  # fmt: skip
        assert name in shown


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quick_run_of_the_gateway_has_a_figure_for_every_aim(tmp_path: Path) -> None:
    command = [
        sys.executable, str(PERF / "bench.py"), "gateway", "--quick", "--threads", "1", "--folder", str(tmp_path),
        "--peers", "ours",
    ]  # fmt: skip
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for figure in (
        "added to a request", "added to a token", "memory of an idle stream", "time to the first token, 4 at once",
        "tokens a second, 4 at once", "/health, 8 connections", "embeddings of 32 tokens",
    ):  # fmt: skip
        assert figure in told

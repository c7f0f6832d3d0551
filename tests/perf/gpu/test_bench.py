"""The GPU bench, tried where there is no GPU: every part at tiny sizes, and what it needs to be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu import bench
from gpu.setting import Setting
from sources import FOLDERS, ROOT, modules, name_of

SCRIPT = Path(bench.__file__)

MISSING = """
import importlib, sys
for name in ("zmq", "msgspec", "msgpack", "starlette", "uvicorn", "httptools", "multipart", "prometheus_client", "rich",
             "prompt_toolkit", "textual", "psutil", "pluggy", "pynvml", "llguidance", "peft", "gguf"):
    sys.modules[name] = None
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.path[:0] = sys.argv[1:3]
for name in sys.argv[3:]:
    importlib.import_module(name)
assert sys.modules["llmos.drivers"].__file__.startswith(sys.argv[1])
"""


def tried(tmp_path: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, object]]:
    command = [sys.executable, str(SCRIPT), "--tiny", "--device", "cpu", "--keep", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("gpu-*.json")]
    assert len(kept) == 1, done.stdout + done.stderr
    return done, kept[0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_part_works_at_tiny_sizes(tmp_path: Path) -> None:
    done, kept = tried(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept["failed"] == {}
    silent = {line["id"] for line in kept["targets"] if line["value"] is None}
    silent_of = {"G8", "G21", "G22"}  # a processor has no clock and no memory of its own; nothing is tuned yet
    assert silent == silent_of, done.stdout
    assert kept["found"]["correct"]["checked"] and kept["found"]["speeds"]


@pytest.mark.slow
def test_a_part_that_fails_or_is_late_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(_setting: Setting) -> list[bench.Part]:
        return [
            bench.Part("absent", "ceilings", "nowhere", 60), bench.Part("late", "ceilings", "run", 0.01),
            bench.Part("ceilings", "ceilings", "run", 60),
        ]  # fmt: skip

    monkeypatch.setattr(bench, "parts", planned)
    found, failed = bench.run(Setting("cpu", True, tmp_path), [], 120.0)
    assert set(failed) == {"absent", "late"}
    assert "nowhere" in failed["absent"] and "not done" in failed["late"]
    assert found["ceilings"]["copy_bytes_per_s"] > 0
    assert bench.run(Setting("cpu", True, tmp_path), [], 1.0)[1]["ceilings"] == "no time was left"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_can_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([]) == 2
    assert "--tiny --device cpu" in capsys.readouterr().err


def test_figures_are_kept_in_a_folder_that_was_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "raw"

    def measured(*_given: object) -> tuple[dict[str, object], dict[str, str]]:
        assert folder.is_dir(), "known to be writable before minutes are spent"
        return {}, {}

    monkeypatch.setattr(bench, "run", measured)
    assert bench.main(["--tiny", "--device", "cpu", "--keep", str(folder)]) == 0
    (kept,) = folder.glob("gpu-*.json")
    assert json.loads(kept.read_text())["machine"]["device"] == "cpu"


@pytest.mark.slow
def test_engine_ops_and_bench_are_imported_on_a_bare_machine(tmp_path: Path) -> None:
    """With torch, triton and transformers, and without messages, sockets, web libraries or a user interface; from the
    sources, as `make view` shows them."""
    (tmp_path / "llmos").mkdir()
    for folder in FOLDERS:
        (tmp_path / "llmos" / folder).symlink_to(ROOT / folder)
    rooms = [ROOT / "drivers" / "engine", ROOT / "drivers" / "ops"]
    ours = [name_of(path) for path in modules("drivers") if any(path.is_relative_to(room) for room in rooms)]
    parts = [f"gpu.{path.stem}" for path in SCRIPT.parent.glob("*.py") if not path.name.startswith(("test_", "__"))]
    assert len(ours) > 50 and "gpu.serving" in parts
    command = [sys.executable, "-c", MISSING, str(tmp_path), str(SCRIPT.parents[1]), *ours, *parts]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

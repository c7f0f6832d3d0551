"""The tutorial of drivers: what it shows is what is in the package, and the package does what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from llmos.drivers.conformance import check
from sources import ROOT

PAGE = (ROOT / "docs" / "write-a-driver.md").read_text()
PACKAGE = ROOT / "docs" / "examples" / "llmos-driver-echo"
CHECK = "$ python -m llmos.drivers.conformance echo0\n"


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.S | re.M)


def code(text: str) -> list[str]:
    """Lines without the empty ones: where a block of the page ends is no matter."""
    return [line for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed by pip into a folder."""
    source = tmp_path_factory.mktemp("source") / "package"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    target = tmp_path_factory.mktemp("target")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


@pytest.fixture
def environ(installed: Path) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(installed)}


def run(command: list[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_the_page_shows_the_package_as_it_is() -> None:
    assert code("".join(fences("py"))) == code((PACKAGE / "llmos_driver_echo.py").read_text())
    (announcement,) = fences("toml")
    assert announcement == (PACKAGE / "pyproject.toml").read_text()


def test_the_driver_is_small() -> None:
    assert len(code((PACKAGE / "llmos_driver_echo.py").read_text())) < 120


def test_the_conformance_kit_says_what_the_page_says(environ: Mapping[str, str]) -> None:
    (shown,) = [block for block in fences("console") if block.startswith(CHECK)]
    done = run([sys.executable, "-m", "llmos.drivers.conformance", "echo0"], environ)
    assert (done.returncode, CHECK + done.stdout) == (0, shown)


def test_a_mistake_is_reported_as_the_page_says(installed: Path, environ: Mapping[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "site"
    shutil.copytree(installed, broken)
    module = broken / "llmos_driver_echo.py"
    text = module.read_text()
    without = re.sub(r"^ *sampling\.check\(.*\)\n", "", text, flags=re.M)
    assert without != text
    module.write_text(without)
    done = run([sys.executable, "-m", "llmos.drivers.conformance", "echo0"], {**environ, "PYTHONPATH": str(broken)})
    (shown,) = [block for block in fences("") if "FAILS" in block]
    assert done.returncode == 1 and shown in done.stdout


def test_programs_and_people_can_use_it(environ: Mapping[str, str], folder: Path) -> None:
    model = folder / "models" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    environ = {**environ, "LLMOS_HOME": str(folder)}
    (program,) = [block for block in fences("python") if "boot(" in block]
    done = run([sys.executable, "-c", program], environ)
    assert (done.stdout, done.returncode) == ("Hello, driver\n", 0), done.stderr
    command = [str(Path(sys.executable).with_name("llmos")), "run", "tiny", "Hello, driver"]
    done = run(command, {**environ, "LLMOS_LOAD_DRIVERS": "echo0,models"})
    assert (done.stdout.strip(), done.returncode) == ("Hello, driver", 0), done.stderr


def test_the_file_system_of_the_page_keeps_the_contract(tmp_path: Path) -> None:
    (source,) = [block for block in fences("python") if "class Notes" in block]
    (tmp_path / "notes_driver.py").write_text(source)
    info = tmp_path / "notes_driver-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: notes-driver\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmos.filesystems]\nnotes = notes_driver\n")
    report = check("notes", config={"a": "hello"}, environ={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert report.holds and report.kind == "filesystem", report.table()

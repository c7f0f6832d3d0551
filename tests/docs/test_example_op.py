"""The page of ops: the package it shows is the one there is, and a kernel uses its operation."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sources import ROOT

PAGE = (ROOT / "docs" / "ops.md").read_text()
PACKAGE = ROOT / "docs" / "examples" / "llmos-op-sigmoid"


def fence(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.S | re.M)
    return str(found)


def test_the_page_shows_the_package_as_it_is() -> None:
    assert fence("py") == (PACKAGE / "llmos_op_sigmoid.py").read_text()
    assert fence("toml") == (PACKAGE / "pyproject.toml").read_text()


def test_the_check_of_the_page_finds_the_example_right() -> None:
    done = subprocess.run([sys.executable, "-c", fence("python")], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) >= 3 and all(line.endswith("right") for line in lines), done.stdout + done.stderr


@pytest.mark.slow
def test_an_installed_op_serves_what_it_says(folder: Path, tmp_path: Path) -> None:
    source, site = tmp_path / "package", tmp_path / "site"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(site), str(source)], check=True, capture_output=True)
    environ = {
        **os.environ, "PYTHONPATH": str(site), "LLMOS_HOME": str(folder), "LLMOS_LOAD_DRIVERS": "cpu0,sigmoid",
    }  # fmt: skip
    shell = [sys.executable, "-m", "llmos.userland.cli"]
    asked = "devices --ops --json\ndevices --ops\n"
    done = subprocess.run(shell, input=asked, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, *shown = done.stdout.splitlines()
    (row,) = [line.split() for line in shown if line.startswith("silu_mul")]
    assert row[3] == "sigmoid" and row[1] != "sigmoid" and "written for float16" in " ".join(row[4:])
    served = json.loads(told)["cpu0"]
    assert served["silu_mul"]["float16"]["serves"] == "sigmoid"
    assert served["silu_mul"]["float32"]["serves"] != "sigmoid"
    assert served["silu_mul"]["float32"]["refused"]["sigmoid"] == "written for float16"
    assert "sigmoid" not in served["gelu_mul"]["float16"]["refused"]

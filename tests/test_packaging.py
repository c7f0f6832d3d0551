"""What is installed is what is in the folders, under the right name."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from sources import FOLDERS, ROOT, imports, modules, name_of

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages() -> dict[str, str]:
    """Import name to folder, as the folders are."""
    inits = [path for folder in FOLDERS for path in modules(folder) if path.name == "__init__.py"]
    return {name_of(path): str(path.parent.relative_to(ROOT)) for path in inits}


def test_every_package_is_listed_and_mapped() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(packages())
    assert setuptools["package-dir"] == packages()


def test_every_folder_with_sources_is_a_package() -> None:
    """The bundled data of a package may hold folders without sources."""
    folders = {path.parent for folder in FOLDERS for path in modules(folder)}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_importing_the_source_folder_is_told_the_right_name(folder: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"ImportError: import llmos.{folder}, not {folder}" in done.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_guard_refuses_any_other_name(folder: str) -> None:
    with pytest.raises(ImportError, match=f"import llmos.{folder}, not {folder}"):
        runpy.run_path(str(ROOT / folder / "__init__.py"), run_name=f"llmos.{folder}.copy")


@pytest.mark.parametrize("folder", FOLDERS)
def test_types_are_announced(folder: str) -> None:
    assert (ROOT / folder / "py.typed").exists()


def test_every_direct_dependency_is_pinned_and_torch_comes_first() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = [normal(line) for line in pins]
    groups = [name for group in PROJECT["dependency-groups"].values() for name in group]
    wanted = {normal(line) for line in (*PROJECT["project"]["dependencies"], *groups)}
    assert pinned[:2] == ["torch", "triton"]
    assert all("==" in line for line in pins)
    assert wanted <= set(pinned)
    assert len(pinned) == len(set(pinned))


def test_every_import_is_of_a_declared_dependency() -> None:
    """What only comes along with another package may go with its next version."""
    declared = {normal(line) for line in PROJECT["project"]["dependencies"]}
    declared |= {normal(line) for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra}
    names = {"zmq": "pyzmq", "pynvml": "nvidia-ml-py", "opentelemetry": "opentelemetry-sdk"}
    imported = {i.module.partition(".")[0] for folder in FOLDERS for path in modules(folder) for i in imports(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"llmos"}
    assert not {normal(names.get(name, name)) for name in foreign} - declared


def normal(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


@pytest.mark.parametrize("group", ["llmos.devices", "llmos.filesystems", "console_scripts"])
def test_every_entry_point_names_a_module_that_exists(group: str) -> None:
    points = [p for p in importlib.metadata.entry_points(group=group) if p.dist and p.dist.name == "llmos"]
    assert points
    names = {name_of(path) for folder in FOLDERS for path in modules(folder)}
    assert [point.value for point in points if point.module not in names] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that nothing is written into the repository."""
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "out", "."]
    subprocess.run(command, cwd=source, check=True)
    (built,) = (source / "out").glob("*.whl")
    return built


def test_the_wheel_holds_all_sources_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licence = [name for name in archive.namelist() if name.endswith("LICENSE")]
    expected = {f"llmos/{path.relative_to(ROOT)}" for folder in FOLDERS for path in modules(folder)}
    assert {name for name in names if name.endswith(".py")} == expected
    assert {name.split("/")[0] for name in names} == {"llmos"}
    assert {f"llmos/{folder}/py.typed" for folder in FOLDERS} <= names
    assert licence


def test_the_wheel_holds_the_bundled_model(wheel: Path) -> None:
    bundled = ROOT / "drivers/filesystems/models/bundled"
    files = {f"llmos/{path.relative_to(ROOT)}" for path in bundled.rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith(".safetensors") for name in files)
        assert files <= set(archive.namelist())


def test_the_wheel_holds_the_dashboard(wheel: Path) -> None:
    files = {path for name in ("static", "vendor") for path in (ROOT / "userland/dashboard" / name).rglob("*")}
    with zipfile.ZipFile(wheel) as archive:
        assert {f"llmos/{path.relative_to(ROOT)}" for path in files if path.is_file()} <= set(archive.namelist())

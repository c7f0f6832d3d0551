"""What a user can set, read or type is documented: settings, metrics, environment variables, hooks, commands."""

from __future__ import annotations

import re

import msgspec
import pytest
from llmos.drivers import hookspecs
from llmos.kernel import config
from llmos.userland.cli.table import COMMANDS
from sources import FOLDERS, ROOT, modules

DOCS = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
EVERYTHING = "\n".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
SOURCES = "\n".join(path.read_text() for folder in FOLDERS for path in modules(folder))
INTERNAL = {"LLMOS_PARENT_PID", "LLMOS_SESSION", "LLMOS_TASK"}
"""Set by the kernel for the processes it starts, not by people."""


@pytest.mark.parametrize(
    "table", [config.Listen, config._Paths, config.SystemLimits, config.DriverConfig, config._Journal, config._Load]
)
def test_every_setting_is_in_the_example(table: type[msgspec.Struct]) -> None:
    example = re.search(r"^```toml\n(.*?)^```", DOCS["operations.md"], re.S | re.M)
    assert example
    keys = set(re.findall(r"^(\w+) = ", example[1], re.M)) | set(re.findall(r"^\[[\w.]+\.(\w+)\]", example[1], re.M))
    assert set(table.__struct_fields__) <= keys


def test_the_example_of_the_settings_is_accepted(tmp_path_factory: pytest.TempPathFactory) -> None:
    example = re.search(r"^```toml\n(.*?)^```", DOCS["operations.md"], re.S | re.M)
    assert example
    file = tmp_path_factory.mktemp("c") / "kernel.toml"
    file.write_text(example[1])
    read = config.load({"config": str(file), "paths.runtime": "/tmp/r"})
    assert read.limits.drain_s == 20


def test_every_metric_is_explained() -> None:
    kernel = "".join(path.read_text() for path in sorted((ROOT / "kernel").rglob("*.py")))
    names = set(re.findall(r'"(llmos_[a-z_]+)"', kernel))
    assert names
    assert {name for name in names if f"`{name}" not in DOCS["operations.md"]} == set()


def test_every_environment_variable_is_explained() -> None:
    names = set(re.findall(r"\b(LLMOS_[A-Z_]+)\b", SOURCES)) - INTERNAL
    assert "LLMOS_HOME" in names
    assert {name for name in names if name not in EVERYTHING} == set()


def test_every_hook_is_explained() -> None:
    hooks = {name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")}
    assert hooks
    assert {name for name in hooks if name not in EVERYTHING} == set()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_explained(command: object) -> None:
    name = getattr(command, "name", "")
    assert re.search(rf"`(llmos )?{re.escape(name)}[ `]|^(llmos )?{re.escape(name)}\b", DOCS["shell.md"], re.M)

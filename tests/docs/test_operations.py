"""The operations page names every setting, metric and environment variable, and its configuration is valid."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from llmos.kernel import config as settings
from llmos.kernel.alert_rules import AlertRule
from llmos.kernel.instruments import Instruments
from llmos.syscalls.types import Limits


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs/operations.md").read_text()


def test_every_metric_is_described_with_its_labels(page: str) -> None:
    for family in Instruments().registry.families():
        labels = "{" + ",".join(family.label_names) + "}" if family.label_names else ""
        assert f"| `{family.name}{labels}` |" in page


def test_the_configuration_on_the_page_names_every_setting_and_is_accepted(page: str, tmp_path: Path) -> None:
    block = re.search(r"```toml\n(.*?)```", page, re.S)
    assert block is not None
    tables = tomllib.loads(block[1])
    assert set(tables) == {*settings.TABLES, "alerts"}
    assert {*tables["alerts"][0], "below"} == set(AlertRule.__struct_fields__)
    assert set(tables["listen"]) == set(settings.Listen.__struct_fields__)
    assert set(tables["paths"]) == set(settings.Paths.__struct_fields__)
    assert set(tables["limits"]) == set(settings.SystemLimits.__struct_fields__)
    assert set(tables["drivers"]["cpu0"]) == set(settings.DriverConfig.__struct_fields__)
    assert set(tables["journal"]) == set(settings.JournalConfig.__struct_fields__)
    assert set(tables["policy"]["uid"]["1001"]["limits"]) == set(Limits.__struct_fields__)
    (tmp_path / "config.toml").write_text(block[1])
    loaded = settings.load({"paths.home": tmp_path}, {})
    assert loaded.policy(1001) is not None


def test_every_environment_variable_of_the_kernel_is_named(page: str, root: Path) -> None:
    source = "".join(path.read_text() for path in (root / "kernel").rglob("*.py"))
    own = set(re.findall(r"\bLLMOS_[A-Z_]+\b", source)) - {"LLMOS_SESSION", "LLMOS_TASK", "LLMOS_PARENT_PID"}
    for name in own:
        assert name in page

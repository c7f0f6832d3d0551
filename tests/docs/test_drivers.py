"""docs/drivers.md names every driver, every setting and every fault."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from llmos.drivers import plugins
from llmos.drivers.devices.null_faults import GARBAGE, KINDS, MOMENTS
from llmos.drivers.filesystems.models.plugin import CONFIG_KEYS
from llmos.drivers.hookspecs import DEVICES, FILESYSTEMS
from llmos.drivers.host import SETTINGS
from sources import ROOT

PAGE = (ROOT / "docs" / "drivers.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| `")]
OWN = [point for group in (DEVICES, FILESYSTEMS) for point in plugins.announced(group, {}) if point.dist is not None]
MINE = sorted((point for point in OWN if point.dist is not None and point.dist.name == "llmos"), key=lambda p: p.name)
NAMES = sorted({point.value: point.name for point in reversed(MINE)}.values())
"""Of the numbered devices of one module the first stands for all."""


def settings_of(name: str) -> Mapping[str, str]:
    if name == "models":
        return CONFIG_KEYS
    factory = plugins.load(name).devices.get(name)
    return {} if factory is None else factory().config_keys


def test_each_driver_has_its_row() -> None:
    assert sorted(row[0].strip("`") for row in ROWS if len(row) == 5) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_of_a_driver_has_its_row(name: str) -> None:
    documented = {row[1].strip("`") for row in ROWS if len(row) == 3 and row[0] == f"`{name}`"}
    assert documented == set(settings_of(name))


def test_the_settings_of_every_driver_have_their_rows_and_defaults() -> None:
    documented = {row[0].strip("`"): row[1] for row in ROWS if len(row) == 3 and row[1].isdigit()}
    assert documented == {name: f"{default:g}" for name, (default, _meaning) in SETTINGS.items()}


def test_each_fault_is_described() -> None:
    section = PAGE.partition("## Faults on order")[2]
    documented = {match[1] for match in re.finditer(r"^\| `(\w+)", section, re.M)}
    assert documented == set(KINDS)
    assert all(f"`{word}`" in section for word in (*MOMENTS, *GARBAGE))

"""Tiny models as they lie in memory of a device that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_kinds
import tiny_models
from tuning_runs import Make, Serve, maker

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.models import Resident
from llmos.drivers.ops.cpu.ops import register_native
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable


@pytest.fixture(scope="session")
def ops() -> OpTable:
    table = OpTable()
    register_reference(table)
    register_native(table)
    return table


@pytest.fixture
def serve(ops: OpTable, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """A loaded model by its architecture, or the library's class of it, and settings, and its folder; `labels` are
    those of a head of classes."""

    def loaded(name: str = "llama", labels: tuple[str, ...] = (), **settings: Any) -> tuple[Resident, Path]:
        folder = tmp_path_factory.mktemp("served") / name
        if labels:
            tiny_kinds.text_model(folder, name, **tiny_kinds.labels(*labels))
        else:
            tiny_models.build(folder, name)
        engine = Engine(ops)
        engine.load("m", tiny_models.source_of(folder), LoadSettings(**settings), tiny_models.silent)
        return engine.base("m"), folder

    return loaded


@pytest.fixture
def make(serve: Serve, tmp_path: Path) -> Make:
    return maker(serve, tmp_path)

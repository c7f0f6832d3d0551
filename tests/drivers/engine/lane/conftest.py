"""A model in a lane, and the same one whose steps are waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
from lanes import Lagging, lane_engine

from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.table import OpTable


@pytest.fixture
def capture() -> Lagging:
    return Lagging()


@pytest.fixture
def engine(ops: OpTable, llama: Path, capture: Lagging) -> Engine:
    """A step ahead of what it knows."""
    return lane_engine(llama, ops, capture)


@pytest.fixture
def waiting(ops: OpTable, llama: Path) -> Engine:
    """The same with the results of each step before the next."""
    return lane_engine(llama, ops, Lagging(), ahead=False)

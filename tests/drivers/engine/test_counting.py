"""Rows of an engine, and what is behind a lack of memory. Rows of models that sleep: `test_engine.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import PROMPT, ask, done, silent, source_of

from llmos.drivers.contract import DoneEvent, FailedEvent, LoadSettings
from llmos.drivers.engine import counting
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import NoDeviceMemory, TooLarge


@pytest.fixture(scope="module")
def engine(ops: OpTable, llama: Path) -> Engine:
    engine = Engine(ops)
    engine.load("m", source_of(llama), LoadSettings(rung="P"), silent)
    return engine


def test_pages_that_were_never_written_are_not_there(engine: Engine) -> None:
    (pages,) = engine._entries["m"].awake().runners[0].pages  # type: ignore[attr-defined]
    pages.fill_(1.0)
    found = engine.absent()
    assert found["kv", "m"] == 0 and found["weights", "m"] >= 0
    done(engine, ask(PROMPT, max_tokens=2))
    kv = next(row for row in engine.memory() if row.what == "kv")
    assert (kv.owner, kv.device) == ("m", "") and kv.allocator == pages.nbytes


def test_a_lack_of_memory_is_explained_by_what_was_planned_for_its_model(engine: Engine) -> None:
    runner = engine._entries["m"].awake().runners[0]
    planned = next(row.predicted for row in engine.memory() if row.what == "workspace")
    fine, long = DoneEvent("a", "x"), FailedEvent("b", TooLarge("no", limit=1, got=2))
    full = FailedEvent("c", NoDeviceMemory("no", needed=500))
    told = counting.explained(engine._entries, runner, [fine, long, full])
    assert list(told[:2]) == [fine, long]
    assert isinstance(told[2], FailedEvent) and told[2].overrun is not None
    assert (told[2].overrun.what, told[2].overrun.predicted, told[2].overrun.measured) == (
        "workspace", planned, planned + 500,
    )  # fmt: skip
    assert counting.explained(engine._entries, runner, [fine, long]) == [fine, long]

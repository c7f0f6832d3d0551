"""The machine's memory as a device of the ledger."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import HOST_MEMORY, MODEL_BYTES, Inside, Program, inside

from llmos.kernel.memory.host import MOST_RESERVE, account, reserve_of
from llmos.kernel.memory.machine import Sample

MIB = 1 << 20
BYTES = st.integers(0, 1000)


def test_what_is_used_is_ours_or_others() -> None:
    sample = Sample(total=1000, available=400, own={1: 50, 2: 300})
    assert account(sample, {2: 100}, present=20) == (150, 230)


@given(BYTES, BYTES, st.dictionaries(st.integers(1, 5), BYTES), st.dictionaries(st.integers(1, 5), BYTES), BYTES)
def test_every_used_byte_is_counted_once(
    total: int, available: int, own: dict[int, int], empty: dict[int, int], present: int
) -> None:
    sample = Sample(max(total, available), min(total, available), own)
    runtime, foreign = account(sample, empty, present)
    models = sum(own.values()) - runtime
    assert runtime >= 0 and foreign >= 0 and models >= 0
    used = sample.total - sample.available
    assert runtime + models + present + foreign == max(used, sum(own.values()) + present)


def test_the_reserve_is_a_part_of_the_machine_at_most_so_much() -> None:
    assert reserve_of(1 << 30, None) == (1 << 30) // 20
    assert reserve_of(1 << 40, None) == MOST_RESERVE
    assert (reserve_of(100, 7), reserve_of(100, 700), reserve_of(100, 0)) == (7, 100, 0)


@pytest.fixture
def pooled(kernel: Inside) -> Inside:
    """The device takes from the machine's memory."""
    assert kernel.null.driver.facts is not None
    facts = msgspec.structs.replace(kernel.null.driver.facts, pool="host", memory_bytes=HOST_MEMORY)
    kernel.null.driver.facts = facts
    kernel.kernel.observer.driver_ready(kernel.null.driver)
    return kernel


def process(number: int) -> Any:
    """A child that runs, as far as anybody asks."""
    return SimpleNamespace(pid=number)


def figures(kernel: Inside) -> dict[str, int]:
    return {row.what: row.ledger for row in kernel.kernel.ledger.rows("host")}


def test_a_machine_in_use_each_second(pooled: Inside, program: Program) -> None:
    ledger, machine = pooled.kernel.ledger, pooled.machine
    reserve = HOST_MEMORY // 20
    assert figures(pooled) == {"reserve": reserve} and ledger.free("null0") == HOST_MEMORY - reserve
    program.load("tiny")
    machine.available -= 300 * MIB
    machine.own[pooled.kernel.pid] = 100 * MIB
    pooled.kernel.tick(pooled.now)
    assert figures(pooled) == {"reserve": reserve, "runtime": 100 * MIB, "foreign": 200 * MIB}
    assert ledger.free("null0") == ledger.free("host") == HOST_MEMORY - reserve - 300 * MIB - MODEL_BYTES
    machine.available += 200 * MIB
    pooled.kernel.tick(pooled.now)
    assert figures(pooled) == {"reserve": reserve, "runtime": 100 * MIB}


def test_what_a_host_takes_for_its_models_is_not_counted_twice(pooled: Inside) -> None:
    driver, machine, kernel = pooled.null.driver, pooled.machine, pooled.kernel
    driver.child = process(4711)
    machine.own[4711] = 80 * MIB
    machine.available -= 80 * MIB
    kernel.observer.driver_ready(driver)
    assert figures(pooled)["runtime"] == 80 * MIB
    machine.own[4711] = 280 * MIB
    machine.available -= 200 * MIB
    kernel.tick(pooled.now)
    assert figures(pooled)["runtime"] == 80 * MIB and "foreign" not in figures(pooled)
    driver.child = process(4712)
    machine.own = {4712: 30 * MIB}
    machine.available += 250 * MIB
    kernel.tick(pooled.now)
    assert figures(pooled)["runtime"] == 30 * MIB
    driver.child = None


def test_the_reserve_can_be_configured(folder: Path) -> None:
    with inside(folder, "[memory]\nreserve_bytes = 1000\n", drivers="null0") as kernel:
        assert kernel.kernel.ledger.free("host") == HOST_MEMORY - 1000

"""The machine's own memory as a device of the ledger: how much of it our processes take by themselves, how much others.

Models, buffers and leases in it have rows of their own; the rest of what is used is either `runtime`, what our
processes took before they had a model, or `foreign`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from llmos.syscalls.types import LedgerRow

from ..ledger import HOST
from .machine import Sample

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..core import Kernel
    from ..supervisor import Driver

RUNTIME = "runtime"
OWNER = "llmos"
MOST_RESERVE = 512 << 20
RESERVE_PART = 20
"""A twentieth of the memory is kept back, at most `MOST_RESERVE`."""


class Source(Protocol):
    """Where samples come from; `Machine` outside of tests."""

    def sample(self, processes: Collection[int], now: float) -> Sample: ...


def account(sample: Sample, baselines: Mapping[int, int], present: int) -> tuple[int, int]:
    """The bytes of `runtime` and of `foreign`.

    Args:
        baselines: what a process that holds models took when it was empty; others hold none, all of theirs counts.
        present: bytes of our shared memory, which is no process's own.
    """
    runtime = sum(min(held, baselines.get(process, held)) for process, held in sample.own.items())
    used = sample.total - sample.available
    return runtime, max(0, used - sum(sample.own.values()) - present)


def reserve_of(total: int, wanted: int | None) -> int:
    """What of so much memory is given to nobody; `wanted` is what the configuration says."""
    return min(total // RESERVE_PART, MOST_RESERVE) if wanted is None else min(wanted, total)


class HostMemory:
    """Keeps the device `host` of the ledger up to date."""

    def __init__(self, kernel: Kernel, source: Source) -> None:
        self._kernel = kernel
        self._source = source
        self._baselines: dict[int, int] = {}
        self.tick()

    def tick(self) -> None:
        """Take a sample; about once a second."""
        kernel = self._kernel
        sample = self._sample()
        runtime, foreign = account(sample, self._baselines, kernel.buffers.present())
        reserve = reserve_of(sample.total, kernel.config.memory.reserve_bytes)
        kernel.ledger.set_device(HOST, sample.total, reserve, pool=HOST)
        kernel.ledger.set_foreign(HOST, foreign)
        rows = [LedgerRow(device=HOST, what=RUNTIME, owner=OWNER, driver=runtime)] if runtime else []
        kernel.ledger.reconcile(HOST, rows, [OWNER])

    def ready(self, driver: Driver) -> None:
        """The driver's host holds nothing yet: what it took so far is none of its models'."""
        if driver.is_device and driver.pid:
            self._baselines[driver.pid] = self._sample().own[driver.pid]
        self.tick()

    def _sample(self) -> Sample:
        drivers = self._kernel.supervisor.drivers.values()
        pids = {self._kernel.pid, *(driver.pid for driver in drivers if driver.pid)}
        for gone in self._baselines.keys() - pids:
            del self._baselines[gone]
        return self._source.sample(pids, self._kernel.runner.clock() / 1e9)

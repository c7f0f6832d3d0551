"""Models that sleep in host memory: all of a model stays as it is, but its tensors have no memory on the device.

Where a place has no such memory, a model that sleeps is forgotten and loaded again from its files.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..contract import ProgressSink
from .memory import out_of_memory, tensors_of
from .models import Resident
from .paged_runner import PagedRunner
from .place import Place, Rested


@dataclass(eq=False)
class Resting:
    """A model that sleeps."""

    resident: Resident
    rested: Rested

    def wake(self, progress: ProgressSink) -> Resident:
        """The model, awake. Raises NoDeviceMemory; then it sleeps on."""
        try:
            moved = self.rested.wake(lambda done, total: progress(done, total, "bytes", "wake"))
        except (RuntimeError, MemoryError) as error:
            full = out_of_memory(error)
            if full is None:
                raise
            raise full from error
        if moved:
            for runner in _paged(self.resident):
                runner.forget_graphs(moved)
        return self.resident


def put(resident: Resident, place: Place) -> Resting | None:
    """Put a model without requests and conversations to rest; None, when it is of no use any more, where it cannot."""
    paged = _paged(resident)
    for runner in paged:
        runner.let_go()
    kept = [*tensors_of(resident.bundle.module), *(tensor for runner in paged for tensor in runner.weights)]
    rested = place.rest(kept, [tensor for runner in paged for tensor in runner.pages])
    return None if rested is None else Resting(resident, rested)


def _paged(resident: Resident) -> list[PagedRunner]:
    return [runner for runner in resident.runners if isinstance(runner, PagedRunner)]

"""The part of a device of torch that tunes models where they serve.

What training needs is imported with the first job: a device that only serves starts without it.
"""

from __future__ import annotations

from abc import abstractmethod
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ..contract import Device, Row, StepEvent, TuneEvent, TuneJob, TunePlan

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..tuning.jobs import Tunings


class TuningDevice(Device):
    """Jobs beside requests. Every method but `cancel_tune` is called on the work thread."""

    def __init__(self) -> None:
        self._tunings: Tunings | None = None
        self._cancelled: SimpleQueue[str] = SimpleQueue()
        self._said: list[StepEvent | TuneEvent] = []

    @abstractmethod
    def _running(self) -> Engine:
        """The engine. Raises BadState when the device is not started."""

    def plan_tune(self, job: TuneJob) -> None:
        self._jobs().plan(job)

    def tune(self, job: TuneJob) -> TunePlan:
        return self._jobs().begin(job)

    def pause_tune(self, job: str) -> None:
        self._jobs().pause(job)

    def resume_tune(self, job: str) -> None:
        self._jobs().resume(job)

    def checkpoint_tune(self, job: str) -> None:
        self._jobs().checkpoint(job)

    def cancel_tune(self, job: str) -> None:
        """End a job with the next step, if there is one of this id. Any thread."""
        self._cancelled.put(job)

    def tuning_rows(self) -> list[Row]:
        """What jobs take."""
        return [] if self._tunings is None else self._tunings.rows()

    def end_tunings(self, model: str) -> None:
        """A model leaves: its jobs fail with the next step."""
        if self._tunings is not None:
            self._said += self._tunings.end_of(model)

    def check_untuned(self, model: str) -> None:
        """Raises BadState for a model that is tuned."""
        if self._tunings is not None:
            self._tunings.check_idle(model)

    def tunings_ended(self) -> list[StepEvent | TuneEvent]:
        """The ends of jobs that no step of theirs brought about."""
        said, self._said = self._said, []
        while self._tunings is not None:
            try:
                said += self._tunings.cancel([self._cancelled.get_nowait()])
            except Empty:
                break
        return said

    def stop_tunings(self) -> None:
        """End all where they stand; they go on from their checkpoints."""
        if self._tunings is not None:
            self._tunings.close()
            self._tunings = None

    def _jobs(self) -> Tunings:
        engine = self._running()
        if self._tunings is None:
            from ..tuning.jobs import Tunings

            self._tunings = Tunings(engine)
        return self._tunings

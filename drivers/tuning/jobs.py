"""The tuning jobs of a device: each is a runner among those that serve, on the weights of a model that serves."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from llmos.syscalls.errors import BadState, DriverFailed, Exists, LlmosError, NotFound

from ..contract import (
    FailedEvent, Prompt, Request, Row, StepEvent, TuneDoneEvent, TuneEvent, TuneJob, TunePlan, TunePlannedEvent,
)  # fmt: skip
from ..engine import mapped
from ..engine.engine import Engine
from ..engine.memory import out_of_memory
from ..engine.models import Resident
from .job import Running
from .others import Others
from .preparing import Prepared, prepare, read_data
from .runner import TuneRunner
from .search.preparing import PreparedSearch, prepare_search
from .search.running import Searching
from .slices import Slices, Yield

Event = StepEvent | TuneEvent

APART, TOGETHER = 1 << 20, 32 << 20
"""Bytes: blocks of activations of which the heap would keep twice as many as live at once, while there are jobs; after
that what the heap comes to by itself."""


@dataclass(eq=False)
class _Under:
    """A job under way."""

    prepared: Prepared | PreparedSearch
    running: Running | Searching
    runner: TuneRunner


class Tunings:
    """Every method is called on the work thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: dict[str, _Under] = {}
        self._plannings: dict[str, tuple[set[str], TuneRunner]] = {}
        """Jobs that are being planned: their models, and what reads their data beside requests."""
        self._planned: Prepared | PreparedSearch | None = None
        """The last one that was planned, and not begun yet: its data need not be read again."""

    def plan(self, job: TuneJob) -> None:
        """Find out beside requests what a job would take: a TunePlannedEvent says it, or a FailedEvent why it cannot
        be. Raises NotFound, BadState, NotSupported, Exists."""
        if job.id in self._jobs or job.id in self._plannings:
            raise Exists(f"a job {job.id} is here already")
        resident, others = self._engine.base(job.model), self._others(job)
        found = deque[Prepared | PreparedSearch]()

        def work(yield_: Yield) -> None:
            found.append(_prepared(job, resident, others, yield_))

        self._planned = None
        runner = TuneRunner(_standing(job), Slices(work), list, lambda error: [self._found(job, found, error)])
        self._plannings[job.id] = (_used(job), runner)
        self._engine.join(runner)

    def _found(self, job: TuneJob, found: deque[Prepared | PreparedSearch], error: BaseException | None) -> Event:
        """What came of planning a job."""
        del self._plannings[job.id]
        if error is not None:
            return FailedEvent(job.id, _typed(error))
        self._planned = found.pop()
        return TunePlannedEvent(job.id, self._planned.plan)

    def begin(self, job: TuneJob) -> TunePlan:
        """Raises what `plan` does, and Exists."""
        if job.id in self._jobs:
            raise Exists(f"a job {job.id} runs already")
        kept, self._planned = self._planned, None
        if kept is None or replace(kept.job, folder=job.folder, keep=job.keep) != job:
            kept = _prepared(job, self._engine.base(job.model), self._others(job))
        prepared = replace(kept, job=job)
        running = Searching(prepared) if isinstance(prepared, PreparedSearch) else Running(prepared)
        slices = Slices(running.work)
        runner = TuneRunner(_standing(job), slices, running.told, lambda error: [self._end(job.id, error)])
        self._jobs[job.id] = _Under(prepared, running, runner)
        mapped.keep_apart(self._apart())
        self._engine.join(runner)
        return prepared.plan

    def pause(self, job: str) -> None:
        """Raises NotFound."""
        runner = self._under(job).runner
        runner.hold()
        self._engine.leave(runner)

    def resume(self, job: str) -> None:
        """Raises NotFound."""
        runner = self._under(job).runner
        runner.go_on()
        self._engine.join(runner)

    def checkpoint(self, job: str) -> None:
        """Raises NotFound."""
        self._under(job).running.checkpoint()

    def cancel(self, jobs: Sequence[str]) -> list[Event]:
        """End those of these jobs that are under way; also those that stand still."""
        events: list[Event] = []
        for job in jobs:
            if job in self._jobs:
                runner = self._jobs[job].runner
                events += runner.cancel((job,))
                self._engine.leave(runner)
        return events

    def end_of(self, model: str) -> list[Event]:
        """The jobs of a model that leaves fail."""
        events: list[Event] = []
        for job in [job for job, under in self._jobs.items() if model in _used(under.prepared.job)]:
            under = self._remove(job)
            self._engine.leave(under.runner)
            under.runner.close()
            gone = BadState("the model was unloaded while it was tuned", state="unloaded")
            events.append(FailedEvent(job, gone))
        for job in [job for job, (planned, _) in self._plannings.items() if model in planned]:
            _, runner = self._plannings.pop(job)
            self._engine.leave(runner)
            runner.close()
            events.append(FailedEvent(job, BadState("the model was unloaded", state="unloaded")))
        return events

    def check_idle(self, model: str) -> None:
        """Raises BadState for a model that is tuned, or is to be."""
        for job, (planned, _) in self._plannings.items():
            if model in planned:
                raise BadState(f"{job} is being planned on {model}; wait for it", state="tuning")
        for job, under in self._jobs.items():
            if model in _used(under.prepared.job):
                raise BadState(f"{model} is tuned by {job}; wait for it, or cancel it", state="tuning")

    def rows(self) -> list[Row]:
        """What jobs take of the device, planned and held."""
        return [
            replace(row, allocator=row.predicted, driver=row.predicted)
            for under in self._jobs.values()
            for row in under.prepared.plan.rows
        ]

    def close(self) -> None:
        """End all, where they stand."""
        for under in self._jobs.values():
            under.runner.close()
        for _, runner in self._plannings.values():
            runner.close()
        self._jobs.clear()
        self._plannings.clear()

    def _others(self, job: TuneJob) -> Others:
        """What else a job names. Raises NotFound, BadState when it sleeps."""
        pairs = {name: self._engine.pairs(id) for name, id in job.models.items()}
        models = {name: self._engine.base(id) for name, id in job.models.items() if pairs[name] is None}
        adapters = {
            name: {path: pair.a.clone() for path, pair in each.pairs.items()} for name, each in pairs.items() if each
        }
        return Others(models, adapters)

    def _under(self, job: str) -> _Under:
        try:
            return self._jobs[job]
        except KeyError:
            raise NotFound(f"no job {job} runs here") from None

    def _remove(self, job: str) -> _Under:
        under = self._jobs.pop(job)
        mapped.keep_apart(self._apart())
        return under

    def _apart(self) -> int:
        """From what size on blocks are given back to the system. Blocks of trials that share a pass are as many times
        larger, and giving back what is needed again at once costs more than the pass saves."""
        if not self._jobs:
            return TOGETHER
        every = (under.prepared for under in self._jobs.values())
        return min(TOGETHER, max(APART * (p.search.parallel if isinstance(p, PreparedSearch) else 1) for p in every))

    def _end(self, job: str, error: BaseException | None) -> Event:
        """The last event of a job."""
        running = self._remove(job).running
        if error is not None:
            return FailedEvent(job, _typed(error))
        if running.manifest:
            return TuneDoneEvent(job, "done", running.values, running.manifest)
        return TuneDoneEvent(job, "cancelled", running.values)


def _prepared(
    job: TuneJob, resident: Resident, others: Others, between: Yield = lambda: None
) -> Prepared | PreparedSearch:
    """A job, or a search for one; `between` is called after each row that is read."""
    if job.recipe.get("search"):
        return prepare_search(job, resident, between, others)
    return prepare(job, resident, partial(read_data, job, between=between), others=others)


def _used(job: TuneJob) -> set[str]:
    """The models that a job looks at."""
    return {job.model, *job.models.values()}


def _standing(job: TuneJob) -> Request:
    """The request that stands for a job among those of the device."""
    return Request(job.id, job.model, Prompt(), work_class=job.work_class)


def _typed(error: BaseException) -> LlmosError:
    """What ended a job, as its owner is told. The device serves on."""
    full = out_of_memory(error)
    if full is not None:
        return full
    if isinstance(error, LlmosError):
        return error
    cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
    return DriverFailed(f"the job failed: {cause}", cause=cause)

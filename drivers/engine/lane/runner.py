"""The paged runner with its decode steps in a lane: it asks for the next step before it knows what the last one chose.

A step is planned as if nobody ended with the one before. What a row that has ended was given too much is dropped, which
its generation tells: it counts the ends of a row. Rows whose tokens the host has to choose (a grammar, log
probabilities, guesses) are waited for in the step that they take part in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmos.syscalls.errors import LlmosError, NoDeviceMemory

from ...contract import Request, StepEvent
from ..blocks import BlockManager
from ..detokenizer import Vocabulary
from ..jobs import Choice, Job
from ..loader import Bundle
from ..lora.layout import sorted_by_adapter
from ..memory import out_of_memory
from ..paged import PagedModel
from ..paged_runner import PagedRunner
from ..runner import Conversation
from ..sampling.grammar import GrammarCompiler
from ..sampling.sample import accept, not_finite
from ..scheduler import StepScheduler
from ..shared import SharedModule
from ..steps import Row, StepPlan
from .lane import Lane, Launched
from .settings import Settings, chosen_on_device, settings_of


@dataclass(frozen=True)
class Flight:
    """A step under way. `chosen` are its rows that are chosen on the device, with their generation when it began, at
    `started` (`time.perf_counter`). `lags`: the next one may be asked for before its results are known."""

    plan: StepPlan
    launched: Launched
    chosen: Sequence[tuple[Row, int]]
    started: float
    lags: bool


class LaneRunner(PagedRunner):
    """As its base, a step ahead of what it knows; with `ahead` off it waits for each step."""

    def __init__(
        self, bundle: Bundle, shared: SharedModule, model: PagedModel, blocks: BlockManager, scheduler: StepScheduler,
        vocabulary: Vocabulary, grammars: GrammarCompiler, lane: Lane, ahead: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(bundle, shared, model, blocks, scheduler, vocabulary, grammars)
        self._lane, self._ahead = lane, ahead
        self._settings: dict[Row, Settings] = {}
        self._flight: Flight | None = None
        self._landed = -math.inf

    @property
    def reasons(self) -> Sequence[str]:
        """Which steps are not captured, and why."""
        return [f"{self.rung}: {', '.join(steps)} not captured: {why}" for why, steps in self._lane.refused.items()]

    def prepare(self, alive: Callable[[], None]) -> None:
        self._lane.prepare(alive)

    def let_go(self) -> None:
        """As its base's; what is under way, for requests that have ended, is waited for."""
        if self._flight is not None:
            self._flight.launched.tokens.wait()
            self._flight = None
        super().let_go()

    def forget_graphs(self, why: str) -> None:
        self._lane.forget()

    def submit(self, request: Request, conversation: Conversation | None = None, adapter: str = "") -> None:
        super().submit(request, conversation, adapter)
        if not chosen_on_device(request.sampling):
            return
        job = self._jobs[request.id]
        for choice in job.choices:
            if not choice.answer.reason:
                choice.on_device = True
                choice.row.most = len(job.prompt) + choice.answer.room
                self._settings[choice.row] = settings_of(choice.chooser, len(job.prompt))

    def step(self) -> list[StepEvent]:
        """Ask for the rows of one plan, then take the results of the plan before."""
        events = self._admit()
        self._make_room()
        plan = sorted_by_adapter(self._scheduler.plan(time.monotonic()))
        events.extend(self._drop(plan))
        before, self._flight = self._flight, None
        if not plan.rows:
            self._model.pool.move(plan)
            if before is None:
                self._compiling.wait()
                return events
            return events + self._land(before)
        try:
            flight = self._launch(plan)
        except (RuntimeError, MemoryError) as error:
            full = out_of_memory(error)
            if full is None:
                raise
            events.extend(self._out_of_memory(plan, full))
            return events + (self._land(before) if before is not None else [])
        if before is not None:
            events.extend(self._land(before))
        if flight.lags:
            self._flight = flight
        else:
            events.extend(self._land(flight))
        return events

    def close(self) -> None:
        super().close()
        self._flight = None
        self._settings.clear()
        self._lane.forget()

    def _out_of_memory(self, plan: StepPlan, error: NoDeviceMemory) -> list[StepEvent]:
        """The request with the largest part in the step is given up; the others try again."""
        widest = max(plan.rows, key=lambda step: step.count)
        return self._fail(self._choices[id(widest.row)][0], error)

    def _launch(self, plan: StepPlan) -> Flight:
        started = time.perf_counter()
        self._model.pool.move(plan)
        launched = self._lane.launch(plan.rows, self._settings)
        rows = [step.row for step in launched.chosen]
        self._scheduler.advance(plan, rows)
        waited_for = any(step.logits and step.row not in self._settings for step in plan.rows)
        chosen = [(row, row.generation) for row in rows]
        return Flight(plan, launched, chosen, started, self._ahead and not waited_for)

    def _land(self, flight: Flight) -> list[StepEvent]:
        """Take the results of a step, once they are here."""
        tokens = flight.launched.tokens.wait()
        now = time.perf_counter()
        seconds, self._landed = now - max(flight.started, self._landed), now
        plan, accepted = flight.plan, None
        failed = self._given(flight, tokens)
        if flight.lags:
            alive = any(id(step.row) in self._choices for step in plan.rows)
            self._scheduler.settle(plan, seconds if alive else 0.0)
        else:
            more, accepted = self._take(plan, flight.launched.logits)
            failed += more
            self._scheduler.complete(plan, seconds, accepted)
        self._charge(plan, seconds)
        events: list[StepEvent] = []
        for job, why in failed:
            events.extend(self._fail(job, why))
        events.extend(self._ended(plan))
        if not flight.lags:
            self._draft(plan)
        return events

    def _given(self, flight: Flight, tokens: Sequence[int]) -> list[tuple[Job, LlmosError]]:
        """Append what the device chose for rows that go on; answers whose logits were not finite."""
        failed: list[tuple[Job, LlmosError]] = []
        for (row, generation), token in zip(flight.chosen, tokens, strict=True):
            if row.generation != generation:
                continue
            row.ahead -= 1
            job, choice = self._choices[id(row)]
            fault = not_finite(math.nan) if token < 0 else None
            if fault is not None:
                failed.append((job, fault))
            else:
                choice.take([accept(choice.chooser, token)], ())
        return failed

    def _leave(self, job: Job, choice: Choice) -> None:
        self._settings.pop(choice.row, None)
        super()._leave(job, choice)

    def _fail(self, job: Job, error: LlmosError) -> list[StepEvent]:
        for choice in job.choices:
            self._settings.pop(choice.row, None)
        return super()._fail(job, error)

"""The generating runner (rung G): models that write with the library's `generate`, requests of equal settings together.

A step takes one flight, the requests of one call of `generate`, one token further; flights take turns. Requests that
arrive later make flights of their own.
"""

from __future__ import annotations

import copy
import math
import time
from bisect import insort
from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

from llmos.syscalls.errors import BadArgument, LlmosError, NotSupported

from ..contract import FailedEvent, Request, StepEvent, Usage
from . import turns
from .batching import LIMITS, BatchLimits, choose
from .detokenizer import Vocabulary
from .flight import Flight, Pending
from .loader import Bundle
from .memory import out_of_memory
from .pace import Pace
from .runner import Conversation, Forgetful
from .sampling.grammar import GrammarCompiler
from .sampling.params import check
from .shared import SharedModule
from .tasks.writing import WritingTask

FLIGHTS = 4
"""Calls of `generate` under way at a time in each class: a short answer does not wait for a long one."""

MISSING = ("prompt_logprobs", "speculative")
ONLY_BEAMS = ("temperature", "logprobs", "grammar", "logit_bias")
"""What a task whose tokens the library chooses does not offer."""


@dataclass(eq=False)
class Waiting:
    """A request that waits for a flight."""

    pending: Pending
    group: Hashable
    place: turns.Place

    @property
    def length(self) -> int:
        return self.pending.draft.length


class GenerateRunner(Forgetful):
    """Serves the tasks of models that write."""

    def __init__(
        self, bundle: Bundle, shared: SharedModule, vocabulary: Vocabulary, grammars: GrammarCompiler,
        task: WritingTask, pace: Pace, limits: BatchLimits = LIMITS,
    ) -> None:  # fmt: skip
        self.rung = "G"
        self.tasks: Sequence[str] = tuple(task.tasks)
        self._bundle, self._shared, self._task = bundle, shared, task
        self._vocabulary, self._grammars, self._limits = vocabulary, grammars, limits
        self._begin, self._go_on = pace, copy.copy(pace)
        """How fast inputs are read, and how fast answers are written."""
        self._waiting: list[Waiting] = []
        self._flights: deque[Flight] = deque()
        self._ready: list[StepEvent] = []
        self._classes = turns.Classes()

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._flights or self._ready)

    def submit(self, request: Request, conversation: Conversation | None = None, adapter: str = "") -> None:
        """Accept a request. Raises BadArgument, TooLarge, NotSupported."""
        if conversation is not None:
            said = f"the task {request.task} takes no conversation"
            raise BadArgument(said, name="context", got=conversation.id, want="none")
        check(request.sampling, self._bundle.vocabulary)
        self._check_offered(request)
        draft = self._task.prepare(request)
        pending = Pending(draft, self._bundle, self._vocabulary, self._grammars, adapter)
        if pending.ended:
            self._ready.append(pending.done())
            return
        sampling = request.sampling
        settings = tuple(sorted(draft.settings.items()))
        rank = turns.rank(request)
        group = (rank, request.task, adapter, draft.group, draft.room, sampling.beams, sampling.ignore_eos, settings)
        waiting = Waiting(pending, group, turns.place(request, time.monotonic()))
        insort(self._waiting, waiting, key=lambda each: each.place)

    def cancel(self, requests: Collection[str]) -> list[StepEvent]:
        """End requests with what they have."""
        gone = [waiting for waiting in self._waiting if waiting.pending.request.id in requests]
        self._waiting = [waiting for waiting in self._waiting if waiting not in gone]
        events = [event for waiting in gone for event in waiting.pending.cancelled()]
        for flight in list(self._flights):
            events += flight.cancel(requests)
            self._land(flight)
        return events

    def step(self) -> list[StepEvent]:
        """Take the next flight of the class whose turn it is one token further. Its requests' errors end them alone."""
        self._end_late()
        if self._ready:
            events, self._ready = self._ready, []
            return events
        present = self._present()
        flight = self._take_off(self._classes.next(present))
        pace, tokens = (self._go_on if flight.departed else self._begin), flight.next_tokens()
        started = time.perf_counter()
        try:
            events = flight.advance()
        except (LlmosError, ValueError, RuntimeError, MemoryError) as error:
            return self._crashed(flight, error)
        finally:
            self._classes.spent(present, flight.rank, time.perf_counter() - started)
        pace.observe(tokens, time.perf_counter() - started)
        self._land(flight)
        return events

    def set_budget(self, budget: Mapping[str, float]) -> None:
        self._classes.set(budget)

    def preempt(self, request: str) -> bool:
        """Let others go before a request that waits; one that is written shares its flight's pace."""
        mine = [waiting for waiting in self._waiting if waiting.pending.request.id == request]
        for waiting in mine:
            waiting.place = turns.place(waiting.pending.request, time.monotonic())
        self._waiting.sort(key=lambda each: each.place)
        return bool(mine) or any(each.request.id == request for flight in self._flights for each in flight.pending)

    def step_seconds(self) -> float:
        present = self._present()
        if not present:
            return 0.0
        rank = self._classes.next(present)
        if self._departs(rank):
            slots = self._next(rank)
            return self._begin.seconds(len(slots) * max(slot.length for slot in slots))
        flight = next(flight for flight in self._flights if flight.rank == rank)
        return (self._go_on if flight.departed else self._begin).seconds(flight.next_tokens())

    def requests(self) -> Sequence[Request]:
        flying = [pending.request for flight in self._flights for pending in flight.pending]
        return [*flying, *(waiting.pending.request for waiting in self._waiting)]

    def usage(self) -> Mapping[str, Usage]:
        every = [each for flight in self._flights for each in flight.pending]
        return {each.request.id: each.usage for each in [*every, *(waiting.pending for waiting in self._waiting)]}

    def kv_bytes(self) -> int:
        return sum(flight.kv_bytes() for flight in self._flights)

    def close(self) -> None:
        for flight in self._flights:
            flight.close()
        self._flights.clear()
        self._waiting.clear()

    def _end_late(self) -> None:
        """End what has passed its deadline."""
        now = time.monotonic()
        every = [*(waiting.pending for waiting in self._waiting), *(each for f in self._flights for each in f.pending)]
        late = {each.request.id: event for each in every if (event := turns.late(each.request, now))}
        if late:
            self.cancel(late)
            self._ready += late.values()

    def _check_offered(self, request: Request) -> None:
        offered = MISSING if self._task.chooses else (*MISSING, *ONLY_BEAMS)
        for name in offered:
            if getattr(request.sampling, name) not in (None, 0.0, {}):
                why = f"{self._bundle.about.architecture} answers {request.task} without it"
                raise NotSupported(f"{name} is not offered here: {why}", why=why)
        if not self._task.chooses and (request.sampling.n > 1 or request.sampling.best_of is not None):
            why = f"{request.task} has one answer"
            raise NotSupported(f"n is not offered here: {why}", why=why)

    def _present(self) -> set[int]:
        """The classes with work."""
        return {waiting.place[0] for waiting in self._waiting} | {flight.rank for flight in self._flights}

    def _departs(self, rank: int) -> bool:
        """Whether a flight of a class begins."""
        flying = sum(flight.rank == rank for flight in self._flights)
        return flying < FLIGHTS and any(waiting.place[0] == rank for waiting in self._waiting)

    def _take_off(self, rank: int) -> Flight:
        """The flight of a class that goes on, a new one if there is room for it."""
        if self._departs(rank):
            self._flights.appendleft(self._depart(rank))
        flight = next(flight for flight in self._flights if flight.rank == rank)
        self._flights.remove(flight)
        self._flights.append(flight)
        return flight

    def _next(self, rank: int) -> list[Waiting]:
        waiting = [each for each in self._waiting if each.place[0] == rank]
        return [waiting[index] for index in choose(waiting, self._limits)]

    def _depart(self, rank: int) -> Flight:
        chosen = self._next(rank)
        self._waiting = [waiting for waiting in self._waiting if waiting not in chosen]
        return Flight(self._bundle, self._shared, self._task, [waiting.pending for waiting in chosen], self._vocabulary)

    def _land(self, flight: Flight) -> None:
        if not flight.pending:
            flight.close()
            self._flights.remove(flight)

    def _crashed(self, flight: Flight, error: Exception) -> list[StepEvent]:
        """The requests of a flight that failed are tried one by one; one alone ends with its error, and so does one
        of which something was told already."""
        self._flights.remove(flight)
        flight.close()
        explained = _explained(error)
        alone = len(flight.pending) == 1
        told = [each for each in flight.pending if alone or (flight.departed and each.request.stream)]
        first = flight.rank, -math.inf
        again = [Waiting(each.anew(), object(), first) for each in flight.pending if each not in told]
        self._waiting = sorted([*again, *self._waiting], key=lambda each: each.place)
        return [FailedEvent(each.request.id, explained, device_ns=each.device_ns) for each in told]


def _explained(error: Exception) -> LlmosError:
    """What to answer for an error of a flight; one that no input explains is raised again."""
    full = out_of_memory(error)
    if full is not None:
        return full
    if isinstance(error, LlmosError):
        return error
    if isinstance(error, ValueError):
        said = str(error).partition("\n")[0][:300]
        return BadArgument(f"the model refuses this input: {said}", name="input", got=said)
    raise error

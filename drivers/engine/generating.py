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
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from llmos.syscalls.errors import BadArgument, LlmosError, NotSupported

from ..contract import FailedEvent, Request, StepEvent
from . import turns
from .batching import LIMITS, BatchLimits, choose
from .detokenizer import Vocabulary
from .flight import Flight, Pending
from .loader import Bundle
from .memory import out_of_memory
from .pace import Pace
from .runner import Conversation
from .sampling.grammar import GrammarCompiler
from .sampling.params import check
from .shared import SharedModule
from .tasks.writing import WritingTask

FLIGHTS = 4
"""Calls of `generate` under way at a time: a short answer does not wait for a long one."""

MISSING = ("prompt_logprobs", "speculative")
ONLY_BEAMS = ("temperature", "logprobs", "grammar", "logit_bias")
"""What a task whose tokens the library chooses does not offer."""


@dataclass(eq=False)
class Waiting:
    """A request that waits for a flight."""

    pending: Pending
    group: Hashable
    place: float

    @property
    def length(self) -> int:
        return self.pending.draft.length


class GenerateRunner:
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
        group = (request.task, adapter, draft.group, draft.room, sampling.beams, sampling.ignore_eos, settings)
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
        """Take the next flight one token further. Its requests' errors end them alone."""
        self._end_late()
        if self._ready:
            events, self._ready = self._ready, []
            return events
        if self._waiting and len(self._flights) < FLIGHTS:
            self._flights.appendleft(self._depart())
        flight = self._flights.popleft()
        self._flights.append(flight)
        pace, tokens = (self._go_on if flight.departed else self._begin), flight.next_tokens()
        started = time.perf_counter()
        try:
            events = flight.advance()
        except (LlmosError, ValueError, RuntimeError, MemoryError) as error:
            return self._crashed(flight, error)
        pace.observe(tokens, time.perf_counter() - started)
        self._land(flight)
        return events

    def step_seconds(self) -> float:
        if self._waiting and len(self._flights) < FLIGHTS:
            slots = self._next()
            return self._begin.seconds(len(slots) * max(slot.length for slot in slots))
        if not self._flights:
            return 0.0
        flight = self._flights[0]
        return (self._go_on if flight.departed else self._begin).seconds(flight.next_tokens())

    def requests(self) -> Sequence[Request]:
        flying = [pending.request for flight in self._flights for pending in flight.pending]
        return [*flying, *(waiting.pending.request for waiting in self._waiting)]

    def kv_bytes(self) -> int:
        return sum(flight.kv_bytes() for flight in self._flights)

    def conversation_bytes(self, conversation: Conversation) -> int:
        return 0

    def fork(self, parent: Conversation, child: Conversation) -> None:
        """Nothing is kept."""

    def forget(self, conversation: Conversation) -> int:
        return 0

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

    def _next(self) -> list[Waiting]:
        return [self._waiting[index] for index in choose(self._waiting, self._limits)]

    def _depart(self) -> Flight:
        chosen = self._next()
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
        again = [Waiting(each.anew(), object(), -math.inf) for each in flight.pending if each not in told]
        self._waiting = [*again, *self._waiting]
        return [FailedEvent(each.request.id, explained) for each in told]


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

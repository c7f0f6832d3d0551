"""The serial runner: one request at a time, through transformers' own cache (rungs G and F)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from llmos.syscalls.errors import LlmosError, NotSupported

from ..contract import FailedEvent, Request, StepEvent, Usage
from ..ops.table import OpTable
from . import causal, embedding, learned, tokens, turns
from .beams import BeamSearch
from .causal import Generation
from .compiling import Compiling
from .decoder import Decoder, SequenceState
from .detokenizer import Vocabulary
from .embedding import Embedding
from .loader import Bundle
from .kept import Kept
from .memory import out_of_memory, tensors_in
from .pace import Pace
from .runner import Conversation
from .sampling.grammar import GrammarCompiler
from .shared import SharedModule


class Work(Protocol):
    """A request under way."""

    id: str
    finished: bool

    def next_tokens(self) -> int: ...
    def advance(self) -> list[StepEvent]: ...
    def cancel(self) -> list[StepEvent]: ...
    def undo(self) -> None: ...


class Turn:
    """A request with what it runs on."""

    def __init__(self, request: Request, work: Work, conversation: Conversation | None, adapter: str) -> None:
        self.request = request
        self.work = work
        self.conversation = conversation
        self.adapter = adapter
        self.device_ns = self.tokens = 0
        self.order = 1, turns.place(request, time.monotonic())
        """0 before its place: it is under way, and the others of its class wait for it."""


class SerialRunner:
    """Generates with a `decoder`, if it is given one, and embeds."""

    def __init__(
        self, bundle: Bundle, shared: SharedModule, decoder: Decoder | None, vocabulary: Vocabulary,
        grammars: GrammarCompiler, ops: OpTable, pace: Pace,
    ) -> None:  # fmt: skip
        self.rung = "F" if decoder is None else "G"
        self.tasks: Sequence[str] = (embedding.TASK,) if decoder is None else (causal.TASK, embedding.TASK)
        if decoder is not None and decoder.before:
            self.tasks = (causal.TASK,)
        self._bundle, self._shared, self._decoder = bundle, shared, decoder
        self._vocabulary, self._compiling, self._ops, self._pace = vocabulary, Compiling(grammars), ops, pace
        self._queue: deque[Turn] = deque()
        self._classes = turns.Classes()

    @property
    def busy(self) -> bool:
        return bool(self._queue)

    def submit(self, request: Request, conversation: Conversation | None = None, adapter: str = "") -> None:
        """Accept a request. Raises BadArgument, TooLarge, NotSupported."""
        work: Work
        if request.task == embedding.TASK:
            work = Embedding(request, self._bundle, self._ops)
        else:
            work = self._generation(request, conversation)
        self._queue.append(Turn(request, work, conversation, adapter))

    def cancel(self, requests: Collection[str]) -> list[StepEvent]:
        """End requests with what they have."""
        events: list[StepEvent] = []
        for turn in [turn for turn in self._queue if turn.request.id in requests]:
            events.extend(turn.work.cancel())
            self._leave(turn)
        return events

    def step(self) -> list[StepEvent]:
        """Advance the first request of the class whose turn it is; its own errors end it alone and leave its
        conversation as it was. One that a higher class has overtaken goes on later from where it is.
        """
        failed, turn = self._admit(), self._next()
        if turn is None:
            self._compiling.wait()
            return failed
        present = {turns.rank(each.request) for each in self._waiting()}
        turn.order = 0, turn.order[1]
        count, started = turn.work.next_tokens(), time.perf_counter()
        turn.tokens += count
        try:
            self._shared.use(turn.adapter)
            events = turn.work.advance()
        except LlmosError as error:
            events = _fail(turn, error)
        except (RuntimeError, MemoryError) as error:
            full = out_of_memory(error)
            if full is None:
                raise
            events = _fail(turn, full)
        else:
            self._pace.observe(count, time.perf_counter() - started)
        turn.device_ns += int(1e9 * (time.perf_counter() - started))
        self._classes.spent(present, turns.rank(turn.request), time.perf_counter() - started)
        if turn.work.finished:
            self._leave(turn)
        return [*failed, *events]

    def set_budget(self, budget: Mapping[str, float]) -> None:
        self._classes.set(budget)

    def preempt(self, request: str) -> bool:
        found = [turn for turn in self._queue if turn.request.id == request]
        for turn in found:
            turn.order = 1, turns.place(turn.request, time.monotonic())
        return bool(found)

    def step_seconds(self) -> float:
        turn = self._next()
        return 0.0 if turn is None else self._pace.seconds(turn.work.next_tokens())

    def requests(self) -> Sequence[Request]:
        return [turn.request for turn in self._queue]

    def usage(self) -> Mapping[str, Usage]:
        return {turn.request.id: Usage(turn.device_ns, turn.tokens) for turn in self._queue}

    def kv_bytes(self) -> int:
        works = (turn.work for turn in self._queue if turn.conversation is None)
        return sum(work.state.cache_bytes() for work in works if isinstance(work, Generation))

    def conversation_bytes(self, conversation: Conversation) -> int:
        return 0 if conversation.held is None else int(conversation.held.cache_bytes())

    def fork(self, parent: Conversation, child: Conversation) -> None:
        if parent.held is not None and self._decoder is not None:
            child.held = self._decoder.fork(parent.held)

    def forget(self, conversation: Conversation) -> int:
        freed, conversation.held = self.conversation_bytes(conversation), None
        return freed

    def put_away(self, conversation: Conversation, pages: dict[int, Tensor], room: int) -> Kept | None:
        """The library's cache as it is, where it lies in host memory already."""
        state: SequenceState | None = conversation.held
        if state is None or state.ids(0).device.type != "cpu" or state.cache_bytes() > room:
            return None
        return Kept(self.rung, state.done, list(tensors_in(state.model_kwargs)), state=state)

    def take_back(self, conversation: Conversation, kept: Kept, adapter: str) -> bool:
        conversation.held = kept.state
        return True

    def close(self) -> None:
        self._queue.clear()
        self._compiling.clear()

    def _waiting(self) -> list[Turn]:
        """Requests that wait for no grammar."""
        return [turn for turn in self._queue if turn.request.id not in self._compiling]

    def _next(self) -> Turn | None:
        waiting = self._waiting()
        if not waiting:
            return None
        rank = self._classes.next({turns.rank(turn.request) for turn in waiting})
        mine = [turn for turn in waiting if turns.rank(turn.request) == rank]
        return min(mine, key=lambda turn: turn.order)

    def _admit(self) -> list[StepEvent]:
        """Let requests begin whose grammar is compiled, and fail those whose grammar is none."""
        events: list[StepEvent] = []
        for id, found in self._compiling.ended():
            turn = next(turn for turn in self._queue if turn.request.id == id)
            if isinstance(found, LlmosError):
                events.extend(_fail(turn, found))
                self._leave(turn)
            elif isinstance(turn.work, Generation):
                turn.work.follow(found)
        return events

    def _leave(self, turn: Turn) -> None:
        self._queue.remove(turn)
        self._compiling.forget(turn.request.id)
        if turn.conversation is not None:  # it has the tokens of its state, which a request that failed has put back
            turn.conversation.tokens = self._state(turn.conversation).tokens()

    def _generation(self, request: Request, conversation: Conversation | None) -> Generation | BeamSearch:
        assert self._decoder is not None
        if request.sampling.beams > 1 and self._decoder.before:
            raise NotSupported("beams are not offered by a model with learned tokens; leave them at 1", why=learned.WHY)
        limit = self._bundle.about.context if conversation is None else conversation.max_tokens
        state = self._decoder.new_state() if conversation is None else self._state(conversation)
        prompt = tokens.continuing(self._bundle, request.prompt, () if conversation is None else conversation.tokens)
        if request.sampling.beams > 1:
            return BeamSearch(request, self._bundle, self._vocabulary, prompt, state, limit)
        made = Generation(request, self._bundle, self._decoder, self._vocabulary, prompt, state, limit)
        compiled = self._compiling.start(request, self._bundle)
        if compiled is not None:
            self._compiling.hold(request.id, compiled)
        return made

    def _state(self, conversation: Conversation) -> SequenceState:
        assert self._decoder is not None
        if conversation.held is None:
            conversation.held = self._decoder.new_state()
            conversation.held.append(conversation.tokens)
        state: SequenceState = conversation.held
        return state


def _fail(turn: Turn, error: LlmosError) -> list[StepEvent]:
    turn.work.finished = True
    turn.work.undo()
    return [FailedEvent(turn.request.id, error, device_ns=turn.device_ns)]



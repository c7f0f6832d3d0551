"""The simple runner: loaded models, conversations and requests; one request of a model at a time, models in turn."""

from __future__ import annotations

import copy
import itertools
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue

import torch

from llmos.syscalls.errors import (
    BadArgument, BadState, Busy, Exists, LlmosError, NotFound, NotSupported,
)  # fmt: skip

from ..contract import (
    ChoiceResult, DoneEvent, FailedEvent, LoadedModel, LoadSettings, ModelSource, OpenedContext, ProgressSink, Request,
    Row, StepEvent,
)  # fmt: skip
from ..ops.table import OpTable
from . import adapters, causal, embedding, models, tokens
from .causal import Generation
from .decoder import SequenceState
from .embedding import Embedding
from .memory import live_bytes, out_of_memory
from .models import Conversation, Entry, Resident, Work
from .plan import PREFILL_CHUNK


class Engine:
    """Runs transformers models on the CPU. Every method but `cancel` is called on one thread."""

    def __init__(self, ops: OpTable, prefill_tokens: int = PREFILL_CHUNK) -> None:
        self._ops = ops
        self._prefill_tokens = prefill_tokens
        self._entries: dict[str, Entry] = {}
        self._conversations: dict[str, Conversation] = {}
        self._turns: deque[Entry] = deque()
        self._ready: list[StepEvent] = []
        self._cancels: SimpleQueue[str] = SimpleQueue()
        self._adapter_names = (f"adapter{number}" for number in itertools.count())

    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        """Predicted bytes. Raises BadModel, BadArgument, NotSupported."""
        footprint, context = models.plan_model(source, settings)
        return footprint.rows(source.path, context)

    def load(
        self, id: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        """Load a model, or an adapter of the loaded model `base`. When it fails, nothing is kept."""
        if id in self._entries:
            raise Exists(f"{id} is loaded already; unload it first")
        entry = self._make_adapter(id, source, settings, base) if base else self._make_model(id, source, settings)
        self._reside(entry, progress)
        self._entries[id] = entry
        return entry.describe()

    @torch.inference_mode()
    def unload(self, id: str) -> int:
        """Forget a model, its conversations and requests; returns bytes freed. Raises NotFound, Busy for a base."""
        entry = self._entry(id)
        users = self._adapters_of(entry)
        if users:
            raise Busy(f"{id} is the base of {', '.join(user.id for user in users)}; unload those first")
        freed = self._rest(entry)
        for conversation in self._conversations_of(entry):
            freed += self.drop_context(conversation.id)
        del self._entries[id]
        return freed

    @torch.inference_mode()
    def sleep(self, id: str) -> LoadedModel:
        """Drop weights and caches, keep the recipe and the tokens of conversations; adapters sleep with their base.

        Raises NotFound, BadState.
        """
        entry = self._model(id)
        described = entry.describe()
        users = [user for user in self._adapters_of(entry) if user.resident is not None]
        if entry.queue or any(user.queue for user in users):
            raise BadState(f"{id} has requests under way; wait for them or cancel them", state="running")
        for each in (*users, entry):
            self._rest(each)
        return replace(described, rows=entry.rows(()))

    def wake(self, id: str, progress: ProgressSink) -> LoadedModel:
        """Load again from the files, with the adapters. Raises NotFound, BadState, and what `load` raises."""
        entry = self._model(id)
        if entry.resident is not None:
            raise BadState(f"{id} is awake", state="awake")
        try:
            for each in (entry, *self._adapters_of(entry)):
                self._reside(each, progress)
        except LlmosError:
            for each in (entry, *self._adapters_of(entry)):
                each.resident = None
            raise
        return entry.describe()

    @torch.inference_mode()
    def open_context(self, id: str, model: str, parent: str, max_tokens: int) -> OpenedContext:
        """Start a conversation, empty or as a copy of another of the same model. Raises NotFound, BadState."""
        if id in self._conversations:
            raise Exists(f"the conversation {id} exists already")
        entry = self._entry(model)
        resident = entry.awake()
        if resident.decoder is None:
            why = "an encoder keeps no conversation"
            raise NotSupported(f"{model}: {why}", why=why)
        limit = resident.bundle.about.context
        if not 0 <= max_tokens <= limit:
            want = f"0 to {limit}"
            said = f"max_tokens is {max_tokens}, {model} takes {want}"
            raise BadArgument(said, name="max_tokens", got=str(max_tokens), want=want)
        state = SequenceState()
        if parent:
            state = copy.deepcopy(self._idle(parent, entry).state)
        opened = Conversation(id, model, max_tokens or limit, state)
        if state.length > opened.max_tokens:
            want = f"at least {state.length}, the tokens of {parent}"
            said = f"max_tokens is {max_tokens}, not {want}"
            raise BadArgument(said, name="max_tokens", got=str(max_tokens), want=want)
        self._conversations[id] = opened
        return OpenedContext(state.length, opened.max_tokens, state.cache_bytes())

    @torch.inference_mode()
    def drop_context(self, id: str) -> int:
        """Forget a conversation and end its request; returns bytes freed. Raises NotFound."""
        conversation = self._conversations.pop(id, None)
        if conversation is None:
            raise NotFound(f"there is no conversation {id}")
        freed = conversation.state.cache_bytes()
        entry = self._entries[conversation.model]
        self._end(entry, [work for work in entry.queue if _uses(work, conversation)])
        return freed

    @torch.inference_mode()
    def submit(self, request: Request) -> None:
        """Accept a request. Raises NotFound, BadArgument, TooLarge, NotSupported, BadState."""
        entry = self._entry(request.model)
        work = self._work(entry, request)
        if work is None:
            return
        if not entry.queue:
            self._turns.append(entry)
        entry.queue.append(work)

    def cancel(self, request: str) -> None:
        """End a request with the next step; unknown ones are ignored. Any thread."""
        self._cancels.put(request)

    @torch.inference_mode()
    def step(self) -> Sequence[StepEvent]:
        """Advance one request of the model whose turn it is."""
        self._end_cancelled()
        events, self._ready = self._ready, []
        if not self._turns:
            return events
        entry = self._turns.popleft()
        work = entry.queue[0]
        events.extend(self._advance(entry, work))
        if work.finished:
            entry.queue.popleft()
        if entry.queue:
            self._turns.append(entry)
        return events

    def step_seconds(self) -> float:
        """How long the next step will take, as predicted."""
        return self._turns[0].predict() if self._turns else 0.0

    def memory(self) -> Sequence[Row]:
        """Rows of all models and conversations."""
        conversations = list(self._conversations.values())
        rows = [row for entry in self._entries.values() for row in entry.rows(conversations)]
        for conversation in conversations:
            entry = self._entries[conversation.model]
            shape = (entry.base or entry).footprint.cache
            held = conversation.state.cache_bytes()
            rows.append(Row("kv", conversation.id, predicted=shape.bytes(conversation.max_tokens), allocator=held))
        return rows

    def close(self) -> None:
        """Drop everything."""
        for entry in self._entries.values():
            entry.queue.clear()
            entry.resident = None
        self._entries.clear()
        self._conversations.clear()
        self._turns.clear()
        models.collect()

    def _make_model(self, id: str, source: ModelSource, settings: LoadSettings) -> Entry:
        if adapters.is_adapter(source):
            want = "the loaded model it belongs to"
            raise BadArgument(f"{source.path} is an adapter; name its base", name="base", got="''", want=want)
        footprint, context = models.plan_model(source, settings)
        return Entry(id, source, settings, footprint, context)

    def _make_adapter(self, id: str, source: ModelSource, settings: LoadSettings, base: str) -> Entry:
        models.check_settings(settings)
        under, footprint = self._model(base), models.adapter_footprint(source)
        return Entry(id, source, settings, footprint, under.context, base=under, adapter=next(self._adapter_names))

    def _reside(self, entry: Entry, progress: ProgressSink) -> None:
        if entry.base is None:
            entry.resident = models.reside(entry, self._prefill_tokens, progress)
            entry.context = entry.resident.bundle.about.context
            return
        below = entry.base.awake()
        adapters.attach(below.bundle.module, entry.adapter, entry.source, progress)
        below.active = ""
        held = live_bytes(adapters.tensors(below.bundle.module, entry.adapter))
        entry.resident = Resident(below.bundle, below.decoder, below.vocabulary, held)

    def _rest(self, entry: Entry) -> int:
        """End an entry's requests and drop what it holds in memory; returns the bytes."""
        freed = entry.held_bytes() + entry.kv_bytes(list(self._conversations.values()))
        self._end(entry, list(entry.queue))
        for conversation in self._conversations_of(entry):
            freed += conversation.state.cache_bytes()
            conversation.state.forget(conversation.state.length)
        if entry.resident is not None and entry.base is not None:
            adapters.detach(entry.resident.bundle.module, entry.adapter)
            entry.base.awake().active = ""
        entry.resident = None
        models.collect()
        return freed

    def _work(self, entry: Entry, request: Request) -> Work | None:
        """The request as work for steps; None when it is answered already."""
        resident = entry.awake()
        task = request.task
        if task == "auto":
            pooled = request.embed is not None or resident.decoder is None
            task = embedding.TASK if pooled else causal.TASK
        if request.context and task != causal.TASK:
            said = f"the task {task} takes no conversation"
            raise BadArgument(said, name="context", got=request.context, want="none")
        if task == causal.TASK and resident.decoder is not None:
            return self._generation(entry, resident, request)
        if task == embedding.TASK:
            return Embedding(request, resident.bundle, self._ops)
        if task in models.TOKEN_TASKS:
            self._ready.append(_token_answer(resident, request, task))
            return None
        offered = ", ".join(entry.describe().tasks)
        raise NotSupported(f"{entry.id} does not do {task}; it offers {offered}", why=f"the model offers {offered}")

    def _generation(self, entry: Entry, resident: Resident, request: Request) -> Generation:
        assert resident.decoder is not None
        limit = resident.bundle.about.context
        state, before = SequenceState(), []
        if request.context:
            conversation = self._idle(request.context, entry)
            state, limit = conversation.state, conversation.max_tokens
            before = state.tokens()
        prompt = tokens.prepare(resident.bundle, request.prompt, continued=bool(before))
        if request.prompt.messages is None:
            prompt = before + prompt
        return Generation(
            request, resident.bundle, resident.decoder, resident.vocabulary, self._ops, prompt, state, limit
        )

    def _advance(self, entry: Entry, work: Work) -> list[StepEvent]:
        """One step of one request; its own errors end it alone and leave its conversation as it was."""
        count, started = work.next_tokens(), time.perf_counter()
        try:
            self._activate(entry)
            events = work.advance()
        except LlmosError as error:
            return self._failed(work, error)
        except (RuntimeError, MemoryError) as error:
            full = out_of_memory(error)
            if full is None:
                raise
            return self._failed(work, full)
        entry.observe(count, time.perf_counter() - started)
        return events

    def _failed(self, work: Work, error: LlmosError) -> list[StepEvent]:
        work.finished = True
        work.undo()
        return [FailedEvent(work.id, error)]

    def _activate(self, entry: Entry) -> None:
        """Let the entry's adapter take part, or none."""
        resident = (entry.base or entry).awake()
        if resident.active != entry.adapter:
            adapters.activate(resident.bundle.module, entry.adapter)
            resident.active = entry.adapter

    def _end_cancelled(self) -> None:
        asked = set()
        while True:
            try:
                asked.add(self._cancels.get_nowait())
            except Empty:
                break
        for entry in list(self._turns) if asked else ():
            self._end(entry, [work for work in entry.queue if work.id in asked])

    def _end(self, entry: Entry, ended: Iterable[Work]) -> None:
        """Finish work of an entry now; the next step reports it."""
        for work in ended:
            entry.queue.remove(work)
            self._ready.extend(work.cancel())
        if not entry.queue and entry in self._turns:
            self._turns.remove(entry)

    def _entry(self, id: str) -> Entry:
        entry = self._entries.get(id)
        if entry is None:
            raise NotFound(f"there is no model {id} on this device")
        return entry

    def _model(self, id: str) -> Entry:
        """An entry that is no adapter. Raises NotFound, NotSupported."""
        entry = self._entry(id)
        if entry.base is not None:
            why = f"it is an adapter and shares the weights of {entry.base.id}"
            raise NotSupported(f"{id} has no weights of its own: {why}", why=why)
        return entry

    def _adapters_of(self, entry: Entry) -> list[Entry]:
        return [other for other in self._entries.values() if other.base is entry]

    def _conversations_of(self, entry: Entry) -> list[Conversation]:
        return [conversation for conversation in self._conversations.values() if conversation.model == entry.id]

    def _idle(self, id: str, entry: Entry) -> Conversation:
        """A conversation of this model that no request uses. Raises NotFound, BadState."""
        conversation = self._conversations.get(id)
        if conversation is None:
            raise NotFound(f"there is no conversation {id}")
        if conversation.model != entry.id:
            raise BadState(f"the conversation {id} belongs to {conversation.model}, not {entry.id}", state="foreign")
        if any(_uses(work, conversation) for work in entry.queue):
            raise BadState(f"the conversation {id} has a request under way", state="busy")
        return conversation


def _uses(work: Work, conversation: Conversation) -> bool:
    return isinstance(work, Generation) and work.state is conversation.state


def _token_answer(resident: Resident, request: Request, task: str) -> DoneEvent:
    """Tokenizing and its reverse, special tokens shown: no model runs."""
    ids = tokens.prepare(resident.bundle, request.prompt)
    text = "" if task == "tokenize" else resident.bundle.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return DoneEvent(request.id, task, (ChoiceResult(0, text, ids, "stop"),), prompt_tokens=len(ids))

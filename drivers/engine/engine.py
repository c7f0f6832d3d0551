"""Loaded models, conversations and requests of one device; its models take turns, a step each."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from llmos.syscalls.errors import BadArgument, BadState, Busy, Exists, LlmosError, NotFound, NotSupported

from ..contract import (
    LoadedModel, LoadSettings, ModelSource, OpenedContext, ProgressSink, Request, Row, StepEvent,
    Usage,
)  # fmt: skip
from ..ops.table import OpTable
from . import causal, counting, drafts, kept, models, others, resting, sharing
from .cancels import Cancels
from .lora import source as lora_source
from .lora.trial import check_runs
from .lora.weights import LoraWeights, interpret
from .memory import free_bytes
from .models import Entry, Resident
from .plan import PREFILL_CHUNK, Footprint
from .place import PROCESSOR, Place
from .plugged import NONE, Architectures
from .prepare import collect
from .retired import RetiredVersions
from .runner import Conversation, Runner
from .serving import serving, token_answer
from .sharing import Sharing

MEMORY = "tensors in memory"


class Engine:
    """Runs transformers models. Every method but `cancel` is called on one thread."""

    def __init__(
        self, ops: OpTable, prefill_tokens: int = PREFILL_CHUNK, own: Architectures = NONE, place: Place = PROCESSOR
    ) -> None:
        """`own`: the classes of models that packages bring; `place`: where models live."""
        self._ops, self._own, self._place = ops, own, place
        self._prefill_tokens = prefill_tokens
        self._entries: dict[str, Entry] = {}
        self._conversations: dict[str, Conversation] = {}
        self._turns = Sharing()
        self._ready: list[StepEvent] = []
        self._cancels = Cancels()
        self._versions = (f"adapter{number}" for number in itertools.count())
        self._retired = RetiredVersions()
        self._uses = itertools.count(1)

    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        """Predicted bytes. Raises BadModel, BadArgument, NotSupported."""
        footprint, context = self._planned(source, settings)
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

    def put_adapter(
        self, id: str, base: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]
    ) -> LoadedModel:
        """Add an adapter from tensors in memory, named and configured as PEFT saves them, or replace the one that has
        this id: requests under way end with the version that they started with, new ones use the new one.

        Raises NotFound, BadState, Exists when the id is not an adapter of `base`, BadModel, NotSupported; then nothing
        has changed.
        """
        under, before = self._model(base), self._entries.get(id)
        if before is not None and before.base is not under:
            raise Exists(f"{id} is loaded already and is no adapter of {base}; unload it first")
        dtype = under.awake().bundle.about.dtype
        weights = interpret(tensors, config, id, MEMORY)
        entry = before or self._adapter_entry(id, ModelSource(id, "", ()), LoadSettings(), under, 0)
        self._put(entry, weights)
        entry.source = ModelSource(id, "", ())
        entry.footprint = models.adapter_footprint(weights.elements * dtype.itemsize)
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
            self._drop(conversation)
        del self._entries[id]
        return freed

    @torch.inference_mode()
    def sleep(self, id: str, host_bytes: int | None = None) -> LoadedModel:
        """Drop caches, and weights where they are not put to rest; keep the recipe, the tokens of conversations, and of
        what was computed of those `host_bytes` in host memory, or half of what is free there. Adapters sleep with it.

        Raises NotFound, BadState.
        """
        entry = self._model(id)
        described = entry.describe()
        users = [user for user in self._adapters_of(entry) if user.resident is not None]
        if any(each.requests() for each in (entry, *users)):
            raise BadState(f"{id} has requests under way; wait for them or cancel them", state="running")
        adapters = entry.awake().shared.adapters
        going_on = [each for one in (entry, *self._adapters_of(entry)) for each in self._conversations_of(one)]
        entry.kept = kept.put_away(going_on, free_bytes() // 2 if host_bytes is None else host_bytes)
        for user in users:
            user.given = None if user.source.files else adapters.weights(user.adapter)
        for each in users:
            self._rest(each)
        self._rest(entry, sleeps=True)
        rows = [*entry.rows(), *entry.host_rows()]
        return replace(described, rows=rows, contexts=[conversation.id for conversation in going_on])

    def wake(self, id: str, progress: ProgressSink) -> LoadedModel:
        """Bring the weights back from where they rest, or load them from the files again; adapters come with them.

        Raises NotFound, BadState, and what `load` raises; then it sleeps on.
        """
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
        for each in self._adapters_of(entry):
            each.given = None
        self._take_back(entry)
        return entry.describe()

    @torch.inference_mode()
    def open_context(self, id: str, model: str, parent: str, max_tokens: int) -> OpenedContext:
        """Start a conversation, empty or as a copy of another of the same model. Raises NotFound, BadState."""
        if id in self._conversations:
            raise Exists(f"the conversation {id} exists already")
        entry = self._entry(model)
        resident = entry.awake()
        if causal.TASK not in resident.tasks:
            why = "it generates no text, so it keeps no conversation"
            raise NotSupported(f"{model}: {why}", why=why)
        limit = resident.bundle.about.context
        if not 0 <= max_tokens <= limit:
            want = f"0 to {limit}"
            said = f"max_tokens is {max_tokens}, {model} takes {want}"
            raise BadArgument(said, name="max_tokens", got=str(max_tokens), want=want)
        opened = Conversation(id, model, max_tokens or limit, adapter=entry.adapter)
        if parent:
            source = self._idle(parent, entry)
            if len(source.tokens) > opened.max_tokens:
                want = f"at least {len(source.tokens)}, the tokens of {parent}"
                said = f"max_tokens is {max_tokens}, not {want}"
                raise BadArgument(said, name="max_tokens", got=str(max_tokens), want=want)
            opened.fork(source)
        self._conversations[id] = opened
        return OpenedContext(len(opened.tokens), opened.max_tokens, opened.bytes())

    @torch.inference_mode()
    def drop_context(self, id: str) -> int:
        """Forget a conversation and end its request; returns bytes freed. Raises NotFound."""
        conversation = self._conversations.get(id)
        if conversation is None:
            raise NotFound(f"there is no conversation {id}")
        entry = self._entries[conversation.model]
        self._end([request.id for request in entry.requests() if request.context == id])
        return conversation.forget() + self._drop(conversation)

    @torch.inference_mode()
    def submit(self, request: Request) -> None:
        """Accept a request. Raises NotFound, BadArgument, TooLarge, NotSupported, BadState."""
        entry = self._entry(request.model)
        resident = entry.awake()
        task = others.ALIASES.get(request.task, request.task)
        if task == "auto":
            task = others.EMBEDDING if request.embed is not None else resident.tasks[0]
        if request.context and task != causal.TASK:
            said = f"the task {task} takes no conversation"
            raise BadArgument(said, name="context", got=request.context, want="none")
        if task in (causal.TASK, *models.TOKEN_TASKS):
            replace(request, task=task).refuse_options()
        if task in models.TOKEN_TASKS and task in resident.tasks:
            self._ready.append(token_answer(resident, request, task))
            return
        runner = serving(resident, task, alone=request.sampling.beams > 1)
        if runner is None:
            offered = ", ".join(resident.tasks)
            said = f"{resident.bundle.about.architecture} does not do {task}; it offers {offered}"
            raise NotSupported(said, why=f"the model offers {offered}")
        conversation = self._idle(request.context, entry) if request.context else None
        if conversation is not None:
            conversation.give_to(runner, entry.adapter)
            conversation.used = next(self._uses)
        runner.submit(replace(request, task=task), conversation, entry.adapter)
        self._turns.add(runner)

    def cancel(self, request: str) -> None:
        """End a request with the next step; unknown ones are ignored. Any thread."""
        self._cancels.put(request)

    @torch.inference_mode()
    def step(self) -> Sequence[StepEvent]:
        """A step of the model whose turn it is."""
        self._end(self._cancels.take())
        events, self._ready = self._ready, []
        runner = self._turns.next()
        if runner is None:
            return events
        events.extend(counting.explained(self._entries, runner, self._turns.step(runner)))
        self._retired.drop()
        return events

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """How models divide the time, by id."""
        self._turns.set_shares(sharing.by_runner(self._entries, shares))

    def set_budget(self, budget: Mapping[str, float]) -> None:
        """What lower classes of work are owed."""
        self._turns.set_budget(budget)

    def preempt(self, request: str) -> None:
        """Let others of its class go before a request. Raises NotFound."""
        if not any(runner.preempt(request) for runner in self._turns):
            raise NotFound(f"the request {request} does not run here")

    def base(self, id: str) -> Resident:
        """What is in memory of a model. Raises NotFound, NotSupported for an adapter, BadState when it sleeps."""
        return self._model(id).awake()

    def pairs(self, id: str) -> LoraWeights | None:
        """The matrices of an adapter; None of a whole model. Raises NotFound, BadState when it sleeps."""
        entry = self._entry(id)
        return entry.awake().shared.adapters.weights(entry.adapter) if entry.base is not None else None

    def join(self, runner: Runner) -> None:
        """Give steps also to a runner that is nobody's, as long as it is busy."""
        self._turns.add(runner)

    def leave(self, runner: Runner) -> None:
        """Give it no more steps."""
        self._turns.remove(runner)

    def usage(self) -> dict[str, Usage]:
        """Of each request under way what it took so far."""
        return {id: used for runner in self._turns for id, used in runner.usage().items()}

    def step_seconds(self) -> float:
        """How long the next step will take, as predicted."""
        runner = self._turns.next()
        return 0.0 if runner is None else runner.step_seconds()

    def memory(self) -> Sequence[Row]:
        """Rows of all models and conversations."""
        return counting.rows_of(self._entries, self._conversations.values())

    def absent(self) -> dict[tuple[str, str], int]:
        """Of the bytes that rows count those that were never written or are not in memory, by (what, owner)."""
        return counting.absent(self._entries)

    def cache_usage(self) -> dict[str, float]:
        """Of each model on pages the share of them that requests hold, 0 to 1."""
        found = {id: entry.cache_usage() for id, entry in self._entries.items()}
        return {id: usage for id, usage in found.items() if usage is not None}

    def resting_bytes(self) -> int:
        """What models that sleep take of the host's memory."""
        return counting.resting_bytes(self._entries)

    def close(self) -> None:
        """Drop everything."""
        for entry in self._entries.values():
            for runner in entry.resident.runners if entry.resident is not None else ():
                runner.close()
            entry.resident = entry.resting = None
        self._entries.clear()
        self._conversations.clear()
        self._turns.clear()
        self._retired.clear()
        collect()

    def _make_model(self, id: str, source: ModelSource, settings: LoadSettings) -> Entry:
        if lora_source.is_adapter(source):
            want = "the loaded model it belongs to"
            raise BadArgument(f"{source.path} is an adapter; name its base", name="base", got="''", want=want)
        footprint, context = self._planned(source, settings)
        return Entry(id, source, settings, footprint, context)

    def _planned(self, source: ModelSource, settings: LoadSettings) -> tuple[Footprint, int]:
        return models.plan_model(source, settings, self._own, self._place, prefill=self._prefill_tokens)

    def _make_adapter(self, id: str, source: ModelSource, settings: LoadSettings, base: str) -> Entry:
        models.check_settings(settings)
        drafts.check(source, settings)
        under = self._model(base)
        planned = lora_source.planned_bytes(source, under.awake().bundle.about.dtype)
        return self._adapter_entry(id, source, settings, under, planned)

    def _adapter_entry(self, id: str, source: ModelSource, settings: LoadSettings, base: Entry, planned: int) -> Entry:
        models.check_adaptable(base)
        return Entry(id, source, settings, models.adapter_footprint(planned), base.context, base=base)

    def _reside(self, entry: Entry, progress: ProgressSink) -> None:
        if entry.base is None and entry.resting is not None:
            entry.resident = entry.resting.wake(progress)
            entry.resting = None
        elif entry.base is None:
            entry.resident = models.reside(
                entry, self._ops, self._prefill_tokens, progress, self._own, self._place
            )
            entry.context = entry.resident.bundle.about.context
        else:
            self._put(entry, entry.given or lora_source.read(entry.source, progress))

    def _put(self, entry: Entry, weights: LoraWeights) -> None:
        """Put a version of an adapter beside its base, for the requests that come from now on."""
        assert entry.base is not None
        below, version = entry.base.awake(), next(self._versions)
        adapters = below.shared.adapters
        adapters.add(version, weights, self._ops, entry.source.path)
        try:
            check_runs(below.bundle, below.shared, version, entry.source.path)
        except LlmosError:
            adapters.drop(version)
            raise
        if entry.resident is not None:
            self._retired.retire(entry, adapters)
        entry.adapter, entry.resident = version, below
        self._retired.drop()

    def _rest(self, entry: Entry, sleeps: bool = False) -> int:
        """End an entry's requests and drop what it holds in memory, or put it to rest; returns the bytes."""
        freed = entry.held_bytes() + entry.kv_bytes()
        self._end([request.id for request in entry.requests()])
        freed += sum(conversation.forget() for conversation in self._conversations_of(entry))
        self._retired.drop()
        if entry.resident is not None and entry.base is not None:
            entry.resident.shared.adapters.drop(entry.adapter)
        resident, entry.resident, entry.resting = entry.resident, None, None
        if sleeps and resident is not None:
            entry.resting = resting.put(resident, self._place)
        if resident is not None and resident.shares is not None:
            resident.shares.drop()
        del resident
        if entry.base is None:
            collect()
            self._place.collect()
        return freed

    def _take_back(self, entry: Entry) -> None:
        """Conversations of a model that is awake again, and of its adapters, go on where they were."""
        for id, each in entry.kept.items():
            conversation = self._conversations[id]
            kept.take_back(conversation, each, entry.awake(), self._entries[conversation.model].adapter)
        entry.kept = {}

    def _drop(self, conversation: Conversation) -> int:
        """A conversation is no more; returns what was kept of it while its model sleeps."""
        del self._conversations[conversation.id]
        entry = self._entries[conversation.model]
        base = entry.base or entry
        before = kept.bytes_of(base.kept)
        base.kept.pop(conversation.id, None)
        return before - kept.bytes_of(base.kept)

    def _end(self, requests: Collection[str]) -> None:
        """Finish requests now; the next step reports it."""
        for runner in self._turns if requests else ():
            self._ready.extend(runner.cancel(requests))
            if not runner.busy:
                self._turns.remove(runner)

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
        if any(request.context == id for request in entry.requests()):
            raise BadState(f"the conversation {id} has a request under way", state="busy")
        return conversation

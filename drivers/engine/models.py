"""What the engine keeps for each loaded model or adapter."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmos.syscalls.errors import BadArgument, BadState, NoDeviceMemory, NotSupported

from ..contract import LoadedModel, LoadSettings, ModelSource, ProgressSink, Row, StepEvent
from . import adapters, causal, checkpoint, embedding, loader, plan
from .decoder import Decoder, SequenceState
from .detokenizer import Vocabulary
from .loader import Bundle
from .memory import free_bytes, live_bytes, tensors_of

TOKEN_TASKS = ("tokenize", "detokenize")
GENERATE_RUNG, FORWARD_RUNG = "G", "F"
RUNG_REASONS = (
    "P: this build has no paged attention",
    "H: this build has no paged attention",
    "S: this build has no slot-batched static cache",
)
FLOPS = 5e9
"""A modest guess of operations in a second, until a model's own speed is known."""


class Work(Protocol):
    """A request under way."""

    id: str
    finished: bool

    def next_tokens(self) -> int: ...
    def advance(self) -> list[StepEvent]: ...
    def cancel(self) -> list[StepEvent]: ...
    def undo(self) -> None: ...


@dataclass(eq=False)
class Conversation:
    """A context: the state that requests with it continue, one at a time."""

    id: str
    model: str
    max_tokens: int
    state: SequenceState


@dataclass(eq=False)
class Resident:
    """The parts of a model that are in memory while it is awake. `active` is the adapter that takes part now."""

    bundle: Bundle
    decoder: Decoder | None
    vocabulary: Vocabulary
    bytes: int
    active: str = ""


@dataclass(eq=False)
class Entry:
    """One model id: its recipe, its plan, its requests in order, and what is in memory.

    An adapter shares what is in memory with its `base`, in whose module it goes by the name `adapter`.
    """

    id: str
    source: ModelSource
    settings: LoadSettings
    footprint: plan.Footprint
    context: int
    resident: Resident | None = None
    base: Entry | None = None
    adapter: str = ""
    queue: deque[Work] = field(default_factory=deque)
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    """For a token; 0 while unknown."""

    def awake(self) -> Resident:
        """What is in memory. Raises BadState when the model sleeps."""
        if self.resident is None:
            raise BadState(f"{self.id} is asleep; wake it first", state="asleep")
        return self.resident

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn how long a token takes, alone and among others."""
        if tokens > 1:
            self.prefill_seconds = _smooth(self.prefill_seconds, seconds / tokens)
        else:
            self.decode_seconds = _smooth(self.decode_seconds, seconds)

    def predict(self) -> float:
        """Seconds that the next step will take."""
        if not self.queue:
            return 0.0
        tokens = self.queue[0].next_tokens()
        known = self.prefill_seconds if tokens > 1 else self.decode_seconds
        return tokens * (known or self.decode_seconds or 2.0 * self.footprint.parameters / FLOPS)

    def held_bytes(self) -> int:
        """Weights in memory."""
        return 0 if self.resident is None else self.resident.bytes

    def kv_bytes(self, conversations: Sequence[Conversation]) -> int:
        """State of running requests that belong to no conversation."""
        kept = {id(conversation.state) for conversation in conversations}
        states = (work.state for work in self.queue if isinstance(work, causal.Generation))
        return sum(state.cache_bytes() for state in states if id(state) not in kept)

    def describe(self, conversations: Sequence[Conversation] = ()) -> LoadedModel:
        """The model as the kernel shows it. Only an awake one can be described."""
        bundle = self.awake().bundle
        about = bundle.about
        made = (causal.TASK, embedding.TASK) if about.causal else (embedding.TASK,)
        return LoadedModel(
            architecture=about.architecture, tasks=(*made, *TOKEN_TASKS), context=about.context,
            parameters=self.footprint.parameters, rows=self.rows(conversations),
            rung=GENERATE_RUNG if about.causal else FORWARD_RUNG, rung_reasons=RUNG_REASONS, chat=bundle.chat,
        )  # fmt: skip

    def rows(self, conversations: Sequence[Conversation]) -> Sequence[Row]:
        """The ledger rows of this model."""
        return self.footprint.rows(self.id, self.context, self.held_bytes(), self.kv_bytes(conversations))


def _smooth(known: float, seen: float) -> float:
    return seen if known == 0.0 else 0.8 * known + 0.2 * seen


def check_settings(settings: LoadSettings) -> None:
    """Raises NotSupported for what this runner does not do, BadArgument for what no runner does."""
    refused = {
        "quant": (settings.quant is not None, "weights are not quantized by this runner"),
        "draft": (bool(settings.draft), "speculative decoding is not made by this runner"),
        "kv_dtype": (settings.kv_dtype not in ("auto", settings.dtype), "keys and values keep the model's dtype"),
        "rung": (settings.rung in ("P", "H", "S"), "this build has no such runner"),
    }
    for name, (wrong, why) in refused.items():
        if wrong:
            raise NotSupported(f"{name} is not offered by this device: {why}", why=why)
    if settings.rung not in ("", GENERATE_RUNG, FORWARD_RUNG):
        want = "P, H, S, G, F or nothing"
        raise BadArgument(f"there is no rung {settings.rung}", name="rung", got=settings.rung, want=want)


def plan_model(source: ModelSource, settings: LoadSettings) -> tuple[plan.Footprint, int]:
    """Bytes of a model or adapter, and its context, from its files without their tensors. Raises BadModel."""
    check_settings(settings)
    if adapters.is_adapter(source):
        return adapter_footprint(source), 0
    weights = checkpoint.check_weights(source)
    checkpoint.check_tokenizer(source)
    with checkpoint.folder_of(source) as folder:
        about = loader.describe(source, settings, folder, weights)
    try:
        return plan.footprint(about), about.context
    except loader.FAILURES as error:
        raise loader.bad_model(source, error, checkpoint.CONFIG) from error


def adapter_footprint(source: ModelSource) -> plan.Footprint:
    """Bytes of an adapter's weights."""
    weights = adapters.check(source)
    return plan.Footprint(sum(weights.dtypes.values()), plan.CacheShape(0, ()), 0, 0)


def reside(entry: Entry, prefill_tokens: int, progress: ProgressSink) -> Resident:
    """Load a model into memory. Raises NoDeviceMemory before it starts, when the weights cannot fit."""
    free, needed = free_bytes(), entry.footprint.weights
    if needed > free:
        said = f"{entry.source.path} needs {needed} bytes for its weights, {free} are free; unload or close something"
        raise NoDeviceMemory(said, needed=needed, free=free)
    bundle = loader.load(entry.source, entry.settings, progress)
    rung, wanted = GENERATE_RUNG if bundle.about.causal else FORWARD_RUNG, entry.settings.rung
    if wanted not in ("", rung):
        why = f"{bundle.about.architecture} does not run on rung {wanted}"
        raise NotSupported(f"{entry.source.path}: {why}", why=why)
    decoder = Decoder(bundle.module, bundle.about.context, prefill_tokens) if bundle.about.causal else None
    return Resident(bundle, decoder, Vocabulary(bundle.tokenizer), live_bytes(tensors_of(bundle.module)))


def collect() -> None:
    """Free what was dropped now; modules and their hooks refer to each other."""
    gc.collect()

"""What the engine keeps for each loaded model or adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llmos.syscalls.errors import BadArgument, BadState, LlmosError, NoDeviceMemory, NotSupported

from ..contract import LoadedModel, LoadSettings, ModelSource, ProgressSink, Request, Row
from ..ops.table import OpTable
from . import checkpoint, drafts, ladder, loader, plan
from .detokenizer import Vocabulary
from .kept import Kept, bytes_of
from .loader import Bundle
from .lora import source as lora_source
from .lora.weights import LoraWeights
from .mapped import trim_heap
from .memory import live_bytes, tensors_of
from .paged_runner import PagedRunner
from .pages import NARROW, pool_pages
from .place import PROCESSOR, Anchor, Place, Shares
from .plugged import NONE, Architectures
from .prepare import prepared
from .quantized.told import told
from .runner import Runner
from .shared import SharedModule

if TYPE_CHECKING:
    from .resting import Resting

HOST = "host"
TOKEN_TASKS = ("tokenize", "detokenize")
RUNGS = ("P", "H", "S", "G", "F")
MADE_AGAIN = "sleep: what was captured is made again when it wakes"


@dataclass(eq=False)
class Resident:
    """The parts of a model that are in memory while it is awake; `runners` are asked for a task in their order."""

    bundle: Bundle
    shared: SharedModule
    vocabulary: Vocabulary | None
    runners: Sequence[Runner]
    rung: str
    reasons: Sequence[str]
    bytes: int
    slots: int
    """Requests that may be under way at a time."""
    shares: Shares | None = None
    """Those of other processes, which count in `bytes`."""
    anchor: Anchor = field(default_factory=Anchor)
    """Of what rests when it sleeps."""

    @property
    def tasks(self) -> list[str]:
        """What it offers, best first."""
        tokens = () if self.vocabulary is None else TOKEN_TASKS
        return [*dict.fromkeys(task for runner in self.runners for task in runner.tasks), *tokens]


@dataclass(eq=False)
class Entry:
    """One model id: its recipe, its plan, and what is in memory.

    An adapter shares what is in memory with its `base`, in whose module its version goes by the name `adapter`. One
    that came as tensors has no files: while it is not beside its base, `given` keeps it. `resting`: what is kept of a
    model that sleeps, where it is not loaded from its files again.
    """

    id: str
    source: ModelSource
    settings: LoadSettings
    footprint: plan.Footprint
    context: int
    resident: Resident | None = None
    base: Entry | None = None
    adapter: str = ""
    given: LoraWeights | None = None
    resting: Resting | None = None
    kept: dict[str, Kept] = field(default_factory=dict)
    """Of its conversations, and those of its adapters, while it sleeps; by their ids."""

    def awake(self) -> Resident:
        """What is in memory. Raises BadState when the model sleeps."""
        if self.resident is None:
            raise BadState(f"{self.id} is asleep; wake it first", state="asleep")
        return self.resident

    def requests(self) -> list[Request]:
        """What runs or waits for this model."""
        if self.resident is None:
            return []
        every = (request for runner in self.resident.runners for request in runner.requests())
        return [request for request in every if request.model == self.id]

    def held_bytes(self) -> int:
        """Weights in memory; a base has what its adapters' stacks leave unused."""
        if self.resident is None:
            return 0
        adapters = self.resident.shared.adapters
        return adapters.bytes(self.adapter) if self.base is not None else self.resident.bytes + adapters.spare_bytes()

    def kv_bytes(self) -> int:
        """State of sequences that belongs to no conversation alone; an adapter's is its base's."""
        if self.resident is None or self.base is not None:
            return 0
        return sum(runner.kv_bytes() for runner in self.resident.runners)

    def cache_usage(self) -> float | None:
        """The share of its pages that requests hold; None for what has no pages of its own."""
        if self.resident is None or self.base is not None:
            return None
        return next((each.cache_usage() for each in self.resident.runners if isinstance(each, PagedRunner)), None)

    def describe(self) -> LoadedModel:
        """The model as the kernel shows it. Only an awake one can be described."""
        resident = self.awake()
        about = resident.bundle.about
        paged = next((each for each in resident.runners if isinstance(each, PagedRunner)), None)
        reasons = (*told(resident.bundle.module), *resident.reasons, *(() if paged is None else paged.reasons))
        return LoadedModel(
            architecture=about.architecture, tasks=resident.tasks, context=about.context,
            parameters=self.footprint.parameters, rows=self.rows(), rung=resident.rung, rung_reasons=reasons,
            chat=resident.bundle.chat, slots=resident.slots,
        )  # fmt: skip

    def rows(self) -> Sequence[Row]:
        """The ledger rows of this model."""
        return self.footprint.rows(self.id, self.context, self.held_bytes(), self.kv_bytes())

    def host_rows(self) -> list[Row]:
        """What it keeps in host memory while it sleeps."""
        weights = 0 if self.resident is not None or self.given is None else self.given.bytes
        weights += 0 if self.resting is None else self.resting.rested.host_bytes
        sizes = {"weights": weights, "kv": bytes_of(self.kept)}
        return [
            Row(what, self.id, allocator=size, driver=size, device=HOST) for what, size in sizes.items() if size
        ]


def check_settings(settings: LoadSettings) -> None:
    """Raises NotSupported for what the engine does not do, BadArgument for what cannot be."""
    refused = {
        "kv_dtype": (
            settings.kv_dtype not in ("auto", settings.dtype, *NARROW),
            f"keys and values keep the model's dtype, or are {' or '.join(NARROW)}",
        ),
    }
    for name, (wrong, why) in refused.items():
        if wrong:
            raise NotSupported(f"{name} is not offered by this device: {why}", why=why)
    if settings.rung not in ("", *RUNGS):
        want = ", ".join(RUNGS) + " or nothing"
        raise BadArgument(f"there is no rung {settings.rung}", name="rung", got=settings.rung, want=want)


def plan_model(
    source: ModelSource, settings: LoadSettings, own: Architectures = NONE, place: Place = PROCESSOR,
    sizing: plan.Sizing | None = None, prefill: int = plan.PREFILL_CHUNK,
) -> tuple[plan.Footprint, int]:  # fmt: skip
    """Bytes of a model or adapter, and its context, from its files without their tensors. Raises BadModel.

    `sizing` says how many pages it gets if not the place does; `prefill`: tokens of a prompt that go into a step.
    """
    check_settings(settings)
    drafts.check(source, settings)
    if source.draft is not None:
        alone = replace(source, draft=None), replace(settings, draft="")
        footprint, context = plan_model(*alone, own, place, prefill=prefill)
        chosen = drafts.settings_of(source.draft, settings, context, own, place)
        return footprint.with_draft(plan_model(source.draft, chosen, own, place, _draft_pages, prefill)[0]), context
    if lora_source.is_adapter(source):
        return adapter_footprint(lora_source.planned_bytes(source)), 0
    weights = checkpoint.check_weights(source)
    with checkpoint.folder_of(source) as folder:
        about = loader.describe(source, settings, folder, weights, own, place)
    try:
        divide = (lambda module: place.divide(module, source.path)) if sizing is None else (lambda module: 1)
        return plan.footprint(about, settings.rung, sizing or place.pages, divide, prefill), about.context
    except loader.FAILURES as error:
        raise loader.bad_model(source, error, checkpoint.CONFIG) from error


def _draft_pages(context: int, _page_bytes: int, _taken: int) -> int:
    """A draft model has its context once."""
    return pool_pages(context)


def check_adaptable(base: Entry) -> None:
    """Raises NotSupported for a base that takes no adapters, BadState for one that sleeps."""
    if base.awake().shares is not None:
        why = "its weights are split among ranks"
        raise NotSupported(f"{base.id} takes no adapters: {why}; load it on a device of one rank", why=why)


def adapter_footprint(weights: int) -> plan.Footprint:
    """An adapter of so many bytes."""
    return plan.Footprint(weights, plan.CacheShape(0, ()), 0, 0)


def reside(
    entry: Entry, ops: OpTable, prefill_tokens: int, progress: ProgressSink, own: Architectures = NONE,
    place: Place = PROCESSOR,
) -> Resident:  # fmt: skip
    """Load a model into memory, and plan it anew where it is served without the pages that were planned.

    Raises NoDeviceMemory before it starts, when the weights cannot fit.
    """
    check_free(entry, place)
    shares = place.begin(entry.source, entry.settings, entry.footprint.pages, progress)
    try:
        made = _reside(entry, ops, prefill_tokens, progress, own, place, shares)
    except LlmosError:
        if shares is not None:
            shares.drop()
        raise
    if not any(isinstance(each, PagedRunner) for each in made.runners):
        entry.footprint = entry.footprint.without_pages()
    trim_heap()
    return made


def check_free(entry: Entry, place: Place) -> None:
    """Raises NoDeviceMemory when the weights cannot fit."""
    free, needed = place.free_bytes(), entry.footprint.weights
    if needed > free:
        said = f"{entry.source.path} needs {needed} bytes for its weights, {free} are free; unload or close something"
        raise NoDeviceMemory(said, needed=needed, free=free)


def _reside(
    entry: Entry, ops: OpTable, prefill_tokens: int, progress: ProgressSink, own: Architectures, place: Place,
    shares: Shares | None,
) -> Resident:  # fmt: skip
    bundle, trial = prepared(entry.source, entry.settings, ops, progress, own, place)
    shared = SharedModule(bundle.module)
    vocabulary = None if bundle.tokenizer is None else Vocabulary(bundle.tokenizer)
    held = live_bytes(tensors_of(bundle.module))
    rung = ladder.choose(bundle, shared, trial, ops, entry.settings.rung, entry.source.path)
    planned = entry.footprint
    runners = ladder.runners(
        rung, bundle, shared, vocabulary, ops, prefill_tokens, planned.parameters, place, planned.pages, shares
    )
    first = runners[0]
    if isinstance(first, PagedRunner) and not entry.settings.prefix_cache:
        first.forget_prefixes()
    if entry.source.draft is not None:
        if not isinstance(first, PagedRunner) or rung.name != ladder.PAGED:
            why = f"a draft model guesses on rung P alone ({'; '.join(rung.reasons)})"
            raise NotSupported(f"{entry.source.path}: {why}", why=why)
        draft = entry.source.draft
        first.drafter, more = drafts.load(draft, entry.settings, bundle, ops, prefill_tokens, progress, own, place)
        held += more
    anchor = Anchor()
    if isinstance(first, PagedRunner):
        anchor = place.anchor(first.weights, first.pages)
        first.prepare(lambda: progress(0, 0, "", "capture"))
    slots = ladder.slots(rung.name, bundle.about.causal, place.rows)
    held += 0 if shares is None else shares.settle()
    reasons = (*rung.reasons, *((f"{MADE_AGAIN}: {anchor.why}",) if anchor.why else ()))
    return Resident(bundle, shared, vocabulary, runners, rung.name, reasons, held, slots, shares, anchor)

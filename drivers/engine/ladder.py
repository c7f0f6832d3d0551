"""Which runner serves a model: the ladder of rungs, from the fastest to the one that always works.

P: keys and values in pages, many requests in one step. H: pages and a state for each request. S: fixed slots with a
static cache. G: the library's own cache, a request at a time. F: one forward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any


from llmos.syscalls.errors import NotSupported

from ..ops.table import OpTable
from . import attention, gathered, others, paged, states
from .attention import Refused
from .blocks import BlockManager
from .capture import Capture
from .costs import StepCost, Work
from .decoder import Decoder, rope_types
from .detokenizer import Vocabulary
from .gathered import Gathering
from .hybrid_runner import HybridRunner
from .lane.lane import Lane
from .lane.runner import LaneRunner
from .learned import WHY
from .loader import FAILURES, Bundle, Description
from .pace import Pace
from .paged import Layers, PagedModel
from .paged_runner import PagedRunner
from .pages import PagePool, page_bytes
from .parallel.refusing import RefusingRunner
from .place import PROCESSOR, ROWS, Place, Shares
from .runner import Runner
from .sampling.grammar import GrammarCompiler
from .scheduler import StepLimits, StepScheduler
from .serial import SerialRunner
from .shared import SharedModule
from .steps import PAGE_TOKENS
from .verify import Trial

GATHERED = "P: keys and values are gathered for the model's own attention: "
PAGED, HYBRID, SLOTS, GENERATE, FORWARD = "P", "H", "S", "G", "F"
LEAST_PREFILL = 4
"""Tokens of a prompt that go in every step, however busy."""


@dataclass(frozen=True)
class Rung:
    """A rung, why none above it serves the model, and the attention layers where those count."""

    name: str
    reasons: tuple[str, ...]
    layers: Layers | Gathering | None = None


def choose(bundle: Bundle, shared: SharedModule, trial: Trial | None, ops: OpTable, wanted: str, path: str) -> Rung:
    """The highest rung that serves a model, or the one that is `wanted`; only what generates has a `trial`.

    Raises NotSupported with the reason.
    """
    found = _highest(bundle, shared, trial, ops)
    if bundle.about.narrow is not None and (wanted not in ("", PAGED) or not isinstance(found.layers, Layers)):
        raise wide_alone(bundle.about, found.reasons)
    if wanted in ("", found.name):
        return found
    if wanted == GENERATE and found.name in (PAGED, HYBRID):
        return Rung(GENERATE, (f"{found.name}: another rung was asked for",))
    why = next((reason for reason in found.reasons if reason.startswith(wanted)), f"it runs on rung {found.name}")
    why = f"{bundle.about.architecture} does not run on rung {wanted} ({why})"
    raise NotSupported(f"{path}: {why}", why=why)


def wide_alone(about: Description, reasons: Sequence[str] = ()) -> NotSupported:
    """What is said of a model whose keys and values cannot be kept as narrow numbers."""
    why = "; ".join(reasons) or "its attention does not read pages as they are"
    why = f"keys and values of {about.architecture} keep the model's dtype: narrow ones lie in pages of rung P ({why})"
    return NotSupported(f"{why}; load it with kv_dtype=auto", why=why)


def slots(rung: str, causal: bool, rows: int = ROWS) -> int:
    """How many requests may be under way at a time, where pages have so many rows."""
    if causal and rung == PAGED:
        return rows
    return 1 if causal and rung != HYBRID else ROWS


def runners(
    rung: Rung, bundle: Bundle, shared: SharedModule, vocabulary: Vocabulary | None, ops: OpTable, prefill_tokens: int,
    parameters: int, place: Place = PROCESSOR, pages: int = 0, shares: Shares | None = None,
) -> Sequence[Runner]:  # fmt: skip
    """The runners of a model on a rung, with so many pages as were planned; the first that offers a task serves it."""
    if shares is not None:
        shared_layers(rung, bundle.about.architecture)
    if not bundle.about.causal:
        return others.runners(bundle, shared, vocabulary, ops, Pace(parameters))
    assert vocabulary is not None
    decoder = Decoder(bundle.module, bundle.about.context, prefill_tokens, bundle.learned)
    grammars = GrammarCompiler(bundle.tokenizer, vocabulary)
    serial = SerialRunner(bundle, shared, decoder, vocabulary, grammars, ops, Pace(parameters))
    if rung.layers is None:
        return [serial]
    each = page_bytes(rung.layers.shapes, bundle.about.pages)
    pages = pages or place.pages(bundle.about.context, each, 0)
    model = paged_model(rung.layers, pages, bundle, shared, ops, place)
    capture = place.capture(bundle.about.architecture) if shares is None and rung.name == PAGED else None
    made = _paged_runner(
        rung.name, rung.layers, model, bundle, shared, vocabulary, grammars, ops, prefill_tokens, parameters, capture,
        place.rows,
    )
    if shares is None:
        return [made, serial]
    model.computing = shares.computing
    model.pool.bytes *= shares.ranks  # each has as large a one
    return [made, RefusingRunner()]


def shared_layers(rung: Rung, path: str) -> Layers:
    """The attention layers of a model that several ranks compute. Raises NotSupported for one that is not all paged."""
    if rung.name != PAGED or not isinstance(rung.layers, Layers):
        why = f"ranks share steps on pages alone ({'; '.join(rung.reasons) or f'rung {rung.name}'})"
        raise NotSupported(f"{path} cannot be split among ranks: {why}; load it on a device of one rank", why=why)
    return rung.layers


def paged_model(
    layers: Layers | Gathering, pages: int, bundle: Bundle, shared: SharedModule, ops: OpTable, place: Place
) -> PagedModel:
    """A model on so many pages."""
    pool = PagePool(layers.shapes, pages, bundle.about.pages, place.device)
    model = PagedModel(shared.use(attention=attention.NAME), layers, pool, ops)
    model.between(lambda rows: shared.use(attention=attention.NAME, rows=rows))
    return model


def limits(prefill_tokens: int, rows: int = ROWS) -> StepLimits:
    """Bounds of a step of so many rows in which a prompt goes in parts of so many tokens at most."""
    return StepLimits(rows, rows + prefill_tokens, prefill_tokens, min(LEAST_PREFILL, prefill_tokens))


def _bounds(rung: str, prefill_tokens: int, context: int, rows: int) -> StepLimits:
    """Where a state is kept a prompt goes at once, however busy."""
    return limits(prefill_tokens, rows) if rung == PAGED else StepLimits(ROWS, ROWS + context, context, context)


def _paged_runner(
    rung: str, layers: Layers | Gathering, model: PagedModel, bundle: Bundle, shared: SharedModule,
    vocabulary: Vocabulary, grammars: GrammarCompiler, ops: OpTable, prefill_tokens: int, parameters: int,
    capture: Capture | None, rows: int,
) -> PagedRunner:  # fmt: skip
    dtype, pool = bundle.about.dtype, model.pool
    packed = None if capture is None else model.packed
    blocks = BlockManager(pool.pages - (packed is not None), pool.host_pages)
    blocks.caching = rung == PAGED
    work = Work(parameters * dtype.itemsize, 2.0 * parameters, page_bytes(layers.shapes, pool.dtype) / PAGE_TOKENS)
    scheduler = StepScheduler(blocks, _bounds(rung, prefill_tokens, bundle.about.context, rows), StepCost(work))
    if packed is not None and capture is not None:
        lane = Lane(packed, shared, ops, capture, rows, bundle.about.context, spare_page=pool.pages - 1)
        return LaneRunner(bundle, shared, model, blocks, scheduler, vocabulary, grammars, lane)
    made = PagedRunner if rung == PAGED else HybridRunner
    return made(bundle, shared, model, blocks, scheduler, vocabulary, grammars)


def paged_layers(module: Any, context: int) -> Layers | Gathering:
    """What pages of a module hold, whichever way it goes through them, as far as a look at it tells.

    The module is set to the paged function and may be left with another. Raises Refused with why it cannot be paged.
    """
    with contextlib.suppress(Refused):
        return _attending(module, context)
    module.set_attn_implementation("eager")
    with contextlib.suppress(Refused):
        return _gathering(module)
    return _hybrid(module)


def _attending(module: Any, context: int) -> Layers:
    """The attention layers of a module set to the paged function. Raises Refused."""
    why = _not_pageable(module)
    if why:
        raise Refused(why)
    try:
        layers = paged.layers_of(module, context)
    except FAILURES as error:
        said = str(error).partition("\n")[0][:160]
        raise Refused(f"it does not run without a cache of its own: {type(error).__name__}: {said}") from error
    why = _untold(module.config, layers, context)
    if why:
        raise Refused(why)
    return layers


def _gathering(module: Any) -> Gathering:
    """What a module with its own attention keeps of its tokens. Raises Refused."""
    why = _not_pageable(module)
    if why:
        raise Refused(why)
    return _over_pages(lambda: gathered.gathering_of(module, states.none_kept(module)))


def _hybrid(module: Any) -> Gathering:
    """The same of a module that keeps states beside. Raises Refused."""
    why = _length_dependent(module)
    if why:
        raise Refused(why)
    return _over_pages(lambda: gathered.gathering_of(module, states.fresh_layers(module)))


def _over_pages(find: Callable[[], Gathering]) -> Gathering:
    try:
        return find()
    except FAILURES as error:
        said = str(error).partition("\n")[0][:160]
        raise Refused(f"it does not take a cache over pages: {type(error).__name__}: {said}") from error


def _highest(bundle: Bundle, shared: SharedModule, trial: Trial | None, ops: OpTable) -> Rung:
    if trial is None:
        return Rung(*others.rung(bundle.about.kind))
    if bundle.learned:
        return Rung(GENERATE, (f"P: {WHY}", f"H: {WHY}", f"S: {WHY}"))
    try:
        module = shared.use(attention=attention.NAME)
        layers = _attending(module, bundle.about.context)
        trial.fit_pages(module, layers, ops)
    except Refused as error:
        why = str(error)
    else:
        return Rung(PAGED, (), layers)
    shared.own_attention = True
    module = shared.use()
    try:
        return Rung(PAGED, (GATHERED + why,), _tried(_gathering(module), module, trial, ops))
    except Refused as error:
        why = "; ".join(dict.fromkeys((why, str(error))))
    try:
        return Rung(HYBRID, (f"P: {why}",), _tried(_hybrid(module), module, trial, ops))
    except Refused as error:
        shared.own_attention = False
        return Rung(GENERATE, (f"P: {why}", f"H: {error}", "S: this build has no slots"))


def _tried(found: Gathering, module: Any, trial: Trial, ops: OpTable) -> Gathering:
    """Row after row, or in batches that are padded where those come to the same. Raises Refused."""
    alone = trial.fit_pages(module, found, ops)
    padded = replace(found, padded=True)
    try:
        together = trial.fit_pages(module, padded, ops)
    except Refused:
        return found
    return padded if trial.alike(alone, together) else found


def _not_pageable(module: Any) -> str:
    """What a look at a model tells against pages; empty when nothing does."""
    if module._is_stateful:
        return "it keeps a recurrent state"
    return _length_dependent(module)


def _length_dependent(module: Any) -> str:
    kinds = rope_types(module.config) & {"dynamic", "longrope"}
    if kinds:
        return f"its rotary frequencies follow the length ({', '.join(sorted(kinds))})"
    return ""


def _untold(config: Any, layers: Layers, context: int) -> str:
    """What masks that are not built would say: windows and chunks of layers of which that was not measured."""
    chunks = {meaning.reach.chunk for meaning in layers.meanings if meaning.reach.chunk % PAGE_TOKENS}
    if chunks:
        return f"its chunks of {chunks.pop()} tokens are no whole pages of {PAGE_TOKENS}"
    if all(layers.found.measured):
        return ""
    text = config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None) or ()
    chunk = getattr(text, "attention_chunk_size", None)
    if "chunked_attention" in kinds and chunk and chunk < context:
        return f"its attention goes in chunks of {chunk} tokens, which only a mask says; max_context={chunk} has none"
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    slides = "sliding_attention" in kinds if kinds else bool(window)
    if slides and window and window < context and not any(meaning.reach.window for meaning in layers.meanings):
        return f"its window of {window} tokens is only in a mask; max_context={window} has none"
    return ""

"""A causal LM over pages: a step plan in, logits out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..ops.replay import Variant
from ..ops.table import OpTable
from . import attention
from .attention import Layer, Meaning, Recorder, Refused, Step, StepTensors
from .caches import PositionsCache
from .gathered import CACHE_NAMES, Gathered, Gathering, new_tokens
from .loader import FAILURES
from .pages import LayerShape, PagePool
from .reach import PROBE
from .states import Stateful
from .steps import PAGE_TOKENS, RowStep, StepPlan

PROBE_TOKENS = 4
TABLE_PAGES = 16
"""Tables of pages are so many wide, or a multiple: steps that follow each other mostly have tables of one width."""


@dataclass(frozen=True)
class Manner:
    """How a module on pages is called: whether it is told positions, and by which name it takes a cache; `counts`:
    positions, or something else, come from the length of that cache.
    """

    told: bool
    cache: str = ""
    counts: bool = False


@dataclass(frozen=True)
class Layers:
    """The attention layers of a module, and how it is to be called."""

    found: Recorder
    manner: Manner

    @property
    def shapes(self) -> Sequence[LayerShape]:
        return self.found.shapes

    @property
    def modules(self) -> Sequence[Any]:
        return self.found.modules

    @property
    def meanings(self) -> Sequence[Meaning]:
        return self.found.meanings


def layers_of(module: Any, context: int) -> Layers:
    """The attention layers of a module that is set to the paged function, by one run of a few tokens.

    Raises Refused, and what the module raises.
    """
    before, manner = module.config._attn_implementation, manner_of(module)
    if before != attention.NAME:
        raise Refused("no layer of it attends through the interface")
    probes = [] if _device(module).type == "meta" else [PROBE]  # a mask without values tells nothing
    tries = [(name, cache) for name in (*probes, before) for cache in ((True, False) if manner.cache else (False,))]
    try:
        for name, cached in tries[:-1]:
            module.set_attn_implementation(name)
            try:
                return _record(module, context, manner, cached)
            except FAILURES:
                continue  # it does not take such a mask, or such a cache
        module.set_attn_implementation(before)
        return _record(module, context, manner, tries[-1][1])
    finally:
        module.set_attn_implementation(before)


def manner_of(module: Any) -> Manner:
    """What a module can be told, by its signature; one that hands on whatever it is given may obey it."""
    accepted = inspect.signature(module.forward).parameters
    passes_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
    cache = next((name for name in CACHE_NAMES if name in accepted), "")
    return Manner("position_ids" in accepted or passes_on, cache)


def _record(module: Any, context: int, manner: Manner, cached: bool) -> Layers:
    """One run with positions, and with a cache that notes whether its length matters beside them."""
    cache = PositionsCache()
    cache.positions = torch.arange(PROBE_TOKENS, device=_device(module))
    ids = torch.zeros(1, PROBE_TOKENS, dtype=torch.long, device=cache.positions.device)
    options: dict[str, Any] = {"use_cache": False, "return_dict": True}
    options |= {"position_ids": cache.positions[None]} if manner.told else {}
    options |= {manner.cache: cache, "attention_mask": torch.ones_like(ids)} if cached else {}
    with torch.inference_mode():
        found = attention.record(module, context, lambda: module(input_ids=ids, **options))
    if not found.modules:
        raise Refused("no layer of it attends through the interface")
    if not manner.told and not cache.asked:
        raise Refused("it takes no position_ids")
    return Layers(found, Manner(manner.told, manner.cache if cache.asked else "", bool(cache.asked)))


class PagedModel:
    """One module and its pages."""

    def __init__(self, module: Any, layers: Layers | Gathering, pool: PagePool, ops: OpTable) -> None:
        self.pool = pool
        self._way: Packed | Gathered
        if isinstance(layers, Gathering):
            self._way = (Stateful if layers.states else Gathered)(module, layers, pool)
        else:
            self._way = Packed(module, layers, pool, ops)

    @property
    def state_bytes(self) -> int:
        """Bytes that rows keep beside their pages."""
        return self._way.state_bytes if isinstance(self._way, Stateful) else 0

    def between(self, before: Callable[[Sequence[RowStep]], Any]) -> None:
        """Let `before` know the rows of each run of the module, where a step may take several."""
        if isinstance(self._way, Gathered):
            self._way.before = before

    def release(self) -> None:
        """Take the pages away from the module."""
        self._way.release()

    @torch.inference_mode()
    def run(self, plan: StepPlan, variant: Variant | None = None) -> Tensor:
        """Carry out a plan; logits [R, V] of the wanted positions, row after row.

        `variant` says which adapters take part; without it nothing of the step is kept to be repeated.
        """
        self.pool.move(plan)
        return self._way.run(plan.rows, variant)


class Packed:
    """All rows in one run, one after the other; the module stays as it is but for the attention function it calls."""

    def __init__(self, module: Any, layers: Layers, pool: PagePool, ops: OpTable) -> None:
        self._module = module
        self._device = _device(module)
        self._step = Step()
        self._manner = layers.manner
        self._parts = tuple(layers.modules)
        self._keeps = "logits_to_keep" in inspect.signature(module.forward).parameters
        dtype = str(module.dtype).removeprefix("torch.")
        measured = zip(layers.meanings, layers.found.measured, strict=True)
        reaches = [meaning.reach if known else None for meaning, known in measured]
        self._chunks = {reach.chunk for reach in reaches if reach is not None and reach.chunk}
        made = []
        for shape, (keys, values), reach in zip(layers.shapes, pool.views(), reaches, strict=True):
            spec = {"device": self._device.type, "dtype": dtype, **_widths(shape)}
            write = ops.choose("write_kv", spec).implementation.call
            attend = ops.choose("paged_attention", spec).implementation.call
            made.append(Layer(keys, values, self._step, write, attend, reach))
        attention.attach_all(self._parts, made)

    def release(self) -> None:
        """Take the pages away from the module."""
        for part in self._parts:
            attention.attach(part, None)

    def run(self, rows: Sequence[RowStep], variant: Variant | None) -> Tensor:
        """Logits [R, V] of the wanted positions, row after row."""
        ids, positions, kept = _packed(rows)
        self._step.tensors = self._tensors(rows)
        self._step.variant = variant
        self._step.number += 1
        options = self._told(torch.tensor([positions], device=self._device))
        if self._keeps:
            options["logits_to_keep"] = torch.tensor(kept, dtype=torch.long, device=self._device)
        inputs = torch.tensor([ids], device=self._device)
        try:
            answer = self._module(input_ids=inputs, **options)
        finally:
            self._step.tensors = None
        logits: Tensor = answer.logits[0]
        return logits if self._keeps else logits[kept]

    def _told(self, positions: Tensor) -> dict[str, Any]:
        """What the module is told beside its tokens: their positions [1, T], in the way that it takes them."""
        options: dict[str, Any] = {"use_cache": False, "return_dict": True}
        if self._manner.told:
            options["position_ids"] = positions
        if self._manner.counts:
            options[self._manner.cache] = cache = PositionsCache()
            cache.positions = positions[0]
            options["attention_mask"] = torch.ones_like(positions)  # or some would size one by the length
        return options

    def _tensors(self, rows: Sequence[RowStep]) -> StepTensors:
        slots = [
            step.row.pages[at // PAGE_TOKENS] * PAGE_TOKENS + at % PAGE_TOKENS
            for step in rows
            for at in range(step.start, step.start + step.count)
        ]
        written = torch.tensor(slots, device=self._device)
        whole = self._cut(rows, written, 0)
        whole.chunks = {chunk: self._cut(rows, written, chunk) for chunk in self._chunks}
        return whole

    def _cut(self, rows: Sequence[RowStep], slots: Tensor, chunk: int) -> StepTensors:
        """What attention reads when each row is cut into chunks, which are whole pages; 0 for one piece."""
        pieces = [piece for step in rows for piece in _pieces(step, chunk)]
        widest = -(-max(len(pages) for pages, _, _ in pieces) // TABLE_PAGES) * TABLE_PAGES
        starts = [0]
        for _pages, count, _length in pieces:
            starts.append(starts[-1] + count)
        table = [[*pages, *[0] * (widest - len(pages))] for pages, _, _ in pieces]
        int32 = partial(torch.tensor, dtype=torch.int32, device=self._device)
        return StepTensors(slots, int32(starts), int32([length for _, _, length in pieces]), int32(table))


def _pieces(step: RowStep, chunk: int) -> Iterator[tuple[Sequence[int], int, int]]:
    """Of each piece: the pages that it sees, how many of its tokens are new, and how many it has."""
    at, end = step.start, step.start + step.count
    while at < end:
        first = at // chunk * chunk if chunk else 0
        last = min(end, first + chunk) if chunk else end
        yield step.row.pages[first // PAGE_TOKENS : (last + PAGE_TOKENS - 1) // PAGE_TOKENS], last - at, last - first
        at = last


def _packed(rows: Sequence[RowStep]) -> tuple[list[int], list[int], list[int]]:
    """Ids and positions of all tokens of a step, and the indices of those whose logits are wanted."""
    ids: list[int] = []
    positions: list[int] = []
    kept: list[int] = []
    for step in rows:
        ids.extend(new_tokens(step))
        positions.extend(range(step.start, step.start + step.count))
        kept.extend(range(len(ids) - step.logits, len(ids)))
    return ids, positions, kept


def _widths(shape: LayerShape) -> Mapping[str, int]:
    return {"heads": shape.heads, "key_width": shape.key_width, "value_width": shape.value_width}


def _device(module: Any) -> torch.device:
    device: torch.device = next(iter(module.parameters())).device
    return device

"""A causal LM over pages: a step plan in, logits out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..ops.replay import Variant
from ..ops.table import OpTable
from . import attention
from .attention import Layer, Meaning, Recorder, Refused, Step, StepTensors, kept_as
from .caches import PositionsCache
from .gathered import CACHE_NAMES, Gathered, Gathering
from .inputs import Cut, Prepared, StepInputs, moves_of, prepare
from .loader import FAILURES
from .pages import LayerShape, PagePool
from .reach import PROBE
from .states import Stateful
from .steps import RowStep, StepPlan

PROBE_TOKENS = 4


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
    """One module and its pages. Each step happens inside `computing`, where other ranks have to compute it too."""

    def __init__(self, module: Any, layers: Layers | Gathering, pool: PagePool, ops: OpTable) -> None:
        self.pool = pool
        self.computing: Callable[[Prepared], AbstractContextManager[None]] | None = None
        self._way: Packed | Gathered
        if isinstance(layers, Gathering):
            self._way = (Stateful if layers.states else Gathered)(module, layers, pool)
        else:
            self._way = Packed(module, layers, pool, ops)

    @property
    def packed(self) -> Packed | None:
        """How rows go through the module when they go all at once; None where it attends in a way of its own."""
        return self._way if isinstance(self._way, Packed) else None

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
        if self.computing is None:
            self.pool.move(plan)
            return self._way.run(plan.rows, variant)
        prepared = self.prepare(plan)
        with self.computing(prepared):
            return self.carry_out(prepared, variant)

    def prepare(self, plan: StepPlan) -> Prepared:
        """What `carry_out` needs of a plan, on any rank. Only of a model whose rows go all at once."""
        assert isinstance(self._way, Packed)
        return Prepared(moves_of(plan), self._way.prepare(plan.rows))

    @torch.inference_mode()
    def carry_out(self, prepared: Prepared, variant: Variant | None = None) -> Tensor:
        """As `run`, for a plan that was prepared, maybe by another process."""
        assert isinstance(self._way, Packed)
        self.pool.move(prepared.moves)
        return self._way.forward(self._way.place(prepared.inputs), variant)


@dataclass(frozen=True)
class Placed:
    """The inputs of a step on the device: ids and positions [1, T], and the indices [R] of the tokens whose logits are
    wanted, None for all of them."""

    ids: Tensor
    positions: Tensor
    kept: Tensor | None
    attended: StepTensors


class Packed:
    """All rows in one run, one after the other; the module stays as it is but for the attention function it calls.

    `up` makes tensors on the device of numbers on the host. `chunks`: the lengths at which some layer cuts rows.
    """

    def __init__(self, module: Any, layers: Layers, pool: PagePool, ops: OpTable) -> None:
        self._module = module
        self.device = _device(module)
        self.up: Callable[..., Tensor] = partial(torch.tensor, device=self.device)
        self._step = Step()
        self._manner = layers.manner
        self._parts = tuple(layers.modules)
        self._keeps = "logits_to_keep" in inspect.signature(module.forward).parameters
        self.dtype = str(module.dtype).removeprefix("torch.")
        measured = zip(layers.meanings, layers.found.measured, strict=True)
        reaches = [meaning.reach if known else None for meaning, known in measured]
        self.chunks = {reach.chunk for reach in reaches if reach is not None and reach.chunk}
        made = []
        held = zip(layers.shapes, pool.views(), pool.scales(), reaches, strict=True)
        for shape, (keys, values), scales, reach in held:
            spec = {"device": self.device.type, "dtype": self.dtype, **_widths(shape), **kept_as(keys, scales)}
            write = ops.choose("write_kv", spec).implementation.call
            attend = ops.choose("paged_attention", spec).implementation.call
            made.append(Layer(keys, values, self._step, write, attend, reach, scales))
        attention.attach_all(self._parts, made)

    def release(self) -> None:
        """Take the pages away from the module."""
        for part in self._parts:
            attention.attach(part, None)

    def run(self, rows: Sequence[RowStep], variant: Variant | None) -> Tensor:
        """Logits [R, V] of the wanted positions, row after row."""
        return self.forward(self.place(self.prepare(rows)), variant)

    def prepare(self, rows: Sequence[RowStep]) -> StepInputs:
        """The inputs of some rows as numbers."""
        return prepare(rows, self.chunks)

    def place(self, inputs: StepInputs) -> Placed:
        """The inputs on the device."""
        slots = self.up(inputs.slots)
        whole = self._cut(inputs.cuts[0], slots)
        whole.chunks = {chunk: self._cut(inputs.cuts[chunk], slots) for chunk in self.chunks}
        return Placed(self.up([inputs.ids]), self.up([inputs.positions]), self.up(inputs.kept, dtype=torch.long), whole)

    def forward(self, placed: Placed, variant: Variant | None) -> Tensor:
        """Logits [R, V]. What is done here depends on the shapes of the inputs alone, if the module's own code does."""
        self._step.tensors = placed.attended
        self._step.variant = variant
        self._step.number += 1
        options = self._told(placed.positions)
        if self._keeps and placed.kept is not None:
            options["logits_to_keep"] = placed.kept
        try:
            answer = self._module(input_ids=placed.ids, **options)
        finally:
            self._step.tensors = None
        logits: Tensor = answer.logits[0]
        return logits if self._keeps or placed.kept is None else logits[placed.kept]

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

    def _cut(self, cut: Cut, slots: Tensor) -> StepTensors:
        int32 = partial(self.up, dtype=torch.int32)
        return StepTensors(slots, int32(cut.starts), int32(cut.lengths), int32(cut.table))


def _widths(shape: LayerShape) -> Mapping[str, int]:
    return {"heads": shape.heads, "key_width": shape.key_width, "value_width": shape.value_width}


def _device(module: Any) -> torch.device:
    device: torch.device = next(iter(module.parameters())).device
    return device

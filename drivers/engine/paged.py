"""A causal LM over pages: a step plan in, logits out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..ops.table import OpTable
from . import attention
from .attention import Layer, Recorder, Refused, Step, StepTensors
from .pages import LayerShape, PagePool
from .steps import PAGE_TOKENS, RowStep, StepPlan

PROBE_TOKENS = 4


def layers_of(module: Any) -> Recorder:
    """The attention layers of a module that was set to the paged function, by one run of a few tokens.

    Raises Refused, and what the module raises.
    """
    ids = torch.zeros(1, PROBE_TOKENS, dtype=torch.long, device=_device(module))
    positions = torch.arange(PROBE_TOKENS, device=ids.device)[None]
    options = forward_options(module)
    with torch.inference_mode():
        found = attention.record(module, lambda: module(input_ids=ids, position_ids=positions, **options))
    if not found.modules:
        raise Refused("no layer of it attends through the interface")
    return found


def forward_options(module: Any) -> Mapping[str, Any]:
    """What every call of a paged module gets. Raises Refused when it cannot be told the positions."""
    accepted = inspect.signature(module.forward).parameters
    if "position_ids" not in accepted:
        raise Refused("it takes no position_ids")
    return {"use_cache": False, "return_dict": True}


class PagedModel:
    """One module and its pages. The module stays as it is but for the attention function that it calls."""

    def __init__(self, module: Any, layers: Recorder, pool: PagePool, ops: OpTable) -> None:
        self.pool = pool
        self._module = module
        self._device = _device(module)
        self._step = Step()
        self._options = forward_options(module)
        self._parts = tuple(layers.modules)
        self._keeps = "logits_to_keep" in inspect.signature(module.forward).parameters
        dtype = str(module.dtype).removeprefix("torch.")
        made = []
        for shape, (keys, values) in zip(layers.shapes, pool.views(), strict=True):
            spec = {"device": self._device.type, "dtype": dtype, **_widths(shape)}
            write = ops.choose("write_kv", spec).implementation.call
            attend = ops.choose("paged_attention", spec).implementation.call
            made.append(Layer(keys, values, self._step, write, attend))
        attention.attach_all(self._parts, made)

    def release(self) -> None:
        """Take the pages away from the module."""
        for part in self._parts:
            attention.attach(part, None)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> Tensor:
        """Carry out a plan; logits [R, V] of the wanted positions, row after row."""
        self.pool.move(plan)
        ids, positions, kept = _packed(plan.rows)
        self._step.tensors = self._tensors(plan.rows)
        self._step.number += 1
        options = dict(self._options)
        if self._keeps:
            options["logits_to_keep"] = torch.tensor(kept, dtype=torch.long, device=self._device)
        inputs = torch.tensor([ids], device=self._device)
        try:
            at = torch.tensor([positions], device=self._device)
            answer = self._module(input_ids=inputs, position_ids=at, **options)
        finally:
            self._step.tensors = None
        logits: Tensor = answer.logits[0]
        return logits if self._keeps else logits[kept]

    def _tensors(self, rows: Sequence[RowStep]) -> StepTensors:
        slots: list[int] = []
        starts, lengths = [0], []
        widest = max((step.start + step.count + PAGE_TOKENS - 1) // PAGE_TOKENS for step in rows)
        table = []
        for step in rows:
            pages, end = step.row.pages, step.start + step.count
            slots.extend(pages[at // PAGE_TOKENS] * PAGE_TOKENS + at % PAGE_TOKENS for at in range(step.start, end))
            starts.append(starts[-1] + step.count)
            lengths.append(end)
            used = pages[: (end + PAGE_TOKENS - 1) // PAGE_TOKENS]
            table.append(used + [0] * (widest - len(used)))
        int32 = partial(torch.tensor, dtype=torch.int32, device=self._device)
        return StepTensors(torch.tensor(slots, device=self._device), int32(starts), int32(lengths), int32(table))


def _packed(rows: Sequence[RowStep]) -> tuple[list[int], list[int], list[int]]:
    """Ids and positions of all tokens of a step, and the indices of those whose logits are wanted."""
    ids: list[int] = []
    positions: list[int] = []
    kept: list[int] = []
    for step in rows:
        row, end = step.row, step.start + step.count
        known = len(row.tokens)
        ids.extend(row.tokens[step.start : end])
        ids.extend(row.drafts[max(0, step.start - known) : max(0, end - known)])
        positions.extend(range(step.start, end))
        kept.extend(range(len(ids) - step.logits, len(ids)))
    return ids, positions, kept


def _widths(shape: LayerShape) -> Mapping[str, int]:
    return {"heads": shape.heads, "key_width": shape.key_width, "value_width": shape.value_width}


def _device(module: Any) -> torch.device:
    device: torch.device = next(iter(module.parameters())).device
    return device

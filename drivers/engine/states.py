"""Rung H: models some of whose layers keep a state of a sequence instead of keys and values of each token.

Keys and values are gathered from pages as for any model with attention of its own. The states are those of the
library's own cache layers: one set for each row, joined to a batch before a run and taken apart after it. A state
cannot go back, so those of the last step stay until the next has begun; a row whose state is lost starts over. So does
one with many tokens to add: in some models what follows a state has to come token by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import (
    DynamicCache,
    DynamicIndexedLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from .gathered import Gathered, Gathering
from ..ops.replay import Variant
from .pages import PagePool
from .reach import Refused
from .steps import Row, RowStep

KNOWN = (
    DynamicIndexedLayer, DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer, LinearAttentionLayer,
    getattr(cache_utils, "DummyLayer", DynamicLayer),
)  # fmt: skip
"""Layers of a cache that keep nothing but keys and values, which pages do, and the two kinds of states; one that keeps
nothing, where the library has it."""


@dataclass(frozen=True)
class Kept:
    """One of the states of a layer: the last inputs of its convolution and its recurrent state, each [1, ...]."""

    conv: Tensor | None
    recurrent: Tensor | None
    kernel: int | None
    filled: bool


FEW = 8
"""So many tokens follow a state one by one; with more a row starts over, which takes one run."""

STATES_KEPT = 2
"""Of each row: that of the last step, which the next may have to begin with again, and that after it."""

State = Sequence[Kept]
"""All states of a row, layer by layer."""


def none_kept(module: Any) -> Sequence[Any]:
    """No layers, for a module that keeps no state. Raises Refused when the library's cache keeps one for it."""
    if _linear(_layers(module)):
        raise Refused("some of its layers keep a state")
    return ()


def fresh_layers(module: Any) -> list[Any]:
    """The layers of an empty cache for a module. Raises Refused where no known layer keeps a state."""
    layers = _layers(module)
    unknown = [type(layer).__name__ for layer in layers if type(layer) not in KNOWN]
    if unknown:
        raise Refused(f"its cache has layers that are not known: {', '.join(sorted(set(unknown)))}")
    if not _linear(layers):
        raise Refused("the library's cache keeps no state for it")
    return layers


def _layers(module: Any) -> list[Any]:
    return DynamicCache(config=module.config.get_text_config(decoder=True)).layers


class Stateful(Gathered):
    """Runs rows of a step through a module that keeps states."""

    def __init__(self, module: Any, layers: Gathering, pool: PagePool) -> None:
        super().__init__(module, layers, pool)
        self._states: WeakKeyDictionary[Row, Mapping[int, State]] = WeakKeyDictionary()
        """By how many tokens they cover."""

    @property
    def state_bytes(self) -> int:
        """Bytes of all states."""
        tensors = [
            tensor
            for states in self._states.values()
            for state in states.values()
            for kept in state
            for tensor in (kept.conv, kept.recurrent)
        ]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def run(self, rows: Sequence[RowStep], variant: Variant | None) -> Tensor:
        """Logits [R, V] of the wanted positions, row after row."""
        for step in rows:
            state = self._state(step)
            self._states[step.row] = {} if state is None else {step.start: state}
        ready = [step for step in rows if step.count == step.logits == 1 and self._state(step) is not None]
        batch = ready if self._layers.padded and len(ready) > 1 else []
        found = dict(zip(map(id, batch), self._run(batch), strict=True)) if batch else {}
        for step in rows:
            if id(step) not in found:
                found[id(step)] = torch.cat([self._run([part])[0] for part in self._parts(step)])
        return torch.cat([found[id(step)] for step in rows])

    def _state(self, step: RowStep) -> State | None:
        return self._states.get(step.row, {}).get(step.start)

    def _parts(self, step: RowStep) -> list[RowStep]:
        """What goes through the module one after the other: guesses singly, since any of them may turn out wrong."""
        end, new = step.start + step.count, step.count - step.drafts
        goes_on = self._state(step) is not None and new <= FEW
        cuts = sorted({step.start if goes_on else 0, *range(end - (step.count if goes_on else step.drafts), end + 1)})
        first = end - step.logits
        return [
            replace(step, start=low, count=high - low, logits=max(0, high - max(low, first)))
            for low, high in pairwise(cuts)
        ]

    def _run(self, rows: Sequence[RowStep]) -> Tensor:
        layers = fresh_layers(self._module)
        known = [state for state in map(self._state, rows) if state is not None]
        if known:
            _join(layers, known)
        logits = self._through(rows, layers)
        for at, step in enumerate(rows):
            self._states[step.row] = {**self._states[step.row], step.start + step.count: _part(layers, at)}
        return logits


def _linear(layers: Sequence[Any]) -> list[tuple[Any, int]]:
    """Each state of each layer that has any."""
    found = [layer for layer in layers if isinstance(layer, LinearAttentionCacheLayerMixin)]
    return [(layer, at) for layer in found for at in range(layer.number_of_states)]


def _join(layers: Sequence[Any], states: Sequence[State]) -> None:
    """Give the layers of an empty cache the states of some rows, as a batch."""
    for number, (layer, at) in enumerate(_linear(layers)):
        parts = [state[number] for state in states]
        convs = [part.conv for part in parts if part.conv is not None]
        recurrents = [part.recurrent for part in parts if part.recurrent is not None]
        if convs:
            layer.conv_states[at] = torch.cat(convs)
            layer.is_conv_states_initialized[at] = True
            layer.conv_kernel_size[at] = parts[0].kernel
            layer.dtype, layer.device = convs[0].dtype, convs[0].device
        if recurrents:
            layer.recurrent_states[at] = torch.cat(recurrents)
            layer.is_recurrent_states_initialized[at] = True
        layer.has_previous_state[at] = parts[0].filled


def _part(layers: Sequence[Any], at: int) -> State:
    """The states of one row of a batch."""

    def own(states: Tensor | None) -> Tensor | None:
        if states is None:
            return None
        return states if states.shape[0] == 1 else states[at : at + 1].clone()

    return [
        Kept(
            own(layer.conv_states[index]), own(layer.recurrent_states[index]), layer.conv_kernel_size[index],
            layer.has_previous_state[index],
        )
        for layer, index in _linear(layers)
    ]  # fmt: skip

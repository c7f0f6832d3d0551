"""The engine's attention: one function that transformers' own interface calls in every attention layer.

`AttentionInterface.register` is the library's official way in; no mask function goes by the same name, so models build
no mask at all. Rows of a step lie packed one after the other in `[1, T]`; the function writes the new keys and values
into the layer's pages and attends to the pages of each row. What it does not know it refuses, and the model is then
served by a lower rung.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from ..ops.replay import Inputs, Variant
from .pages import LayerShape
from .reach import PROBE, Described, Reach, measure
from .reach import Refused as Refused

NAME = "llmos_paged"
ATTRIBUTE = "_llmos_layer"

IGNORED = frozenset(
    ("dropout", "position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states",
     "return_dict", "logits_to_keep", "position_embeddings", "output_router_logits", "labels", "num_items_in_batch")
)  # fmt: skip
"""Arguments that change nothing here: positions are applied before, dropout is off while serving."""


@dataclass
class StepTensors:
    """What one step's attention reads, the same for all layers.

    slots [T] int64: page * PAGE_TOKENS + offset of each new token; starts [rows + 1] int32: where each row begins;
    lengths [rows] int32: tokens of each row with this step's; table [rows, pages] int32: the pages of each row.
    chunks: the same with each row cut where a chunk of so many tokens ends, for layers that see no further.
    """

    slots: Tensor
    starts: Tensor
    lengths: Tensor
    table: Tensor
    chunks: Mapping[int, StepTensors] = field(default_factory=dict)
    _inputs: dict[tuple[int, int], Inputs] = field(default_factory=dict)

    def with_angles(self, angles: tuple[Tensor, Tensor]) -> Inputs:
        """Every tensor of it, and the angles of its positions; the same object for the same angles."""
        key = id(angles[0]), id(angles[1])
        if key not in self._inputs:
            cut = [tensor for each in self.chunks.values() for tensor in (each.starts, each.lengths, each.table)]
            self._inputs[key] = Inputs((*angles, self.slots, self.starts, self.lengths, self.table, *cut))
        return self._inputs[key]


@dataclass
class Step:
    """The step under way; the layers of a model share one. `number` counts steps, `variant` says which adapters take
    part, None where that is not known.
    """

    tensors: StepTensors | None = None
    number: int = 0
    variant: Variant | None = None


@dataclass(frozen=True)
class Meaning:
    """How a layer attends: the scale of its scores, how far it sees, its soft cap (0 for none), its sinks [Hq]."""

    scale: float
    reach: Reach
    softcap: float
    sinks: Tensor | None


@dataclass
class Layer:
    """One attention layer's pages, the ops that serve it, and how far it sees where that was measured.

    `scales`: of pages of a narrower dtype the ops' arguments `key_scale` and `value_scale`, each float32
    [pages, heads, PAGE_TOKENS].
    """

    keys: Tensor
    values: Tensor
    step: Step
    write: Callable[..., None]
    attend: Callable[..., Tensor]
    reach: Reach | None = None
    scales: Mapping[str, Tensor] = field(default_factory=dict)

    def run(self, q: Tensor, k: Tensor, v: Tensor, meaning: Meaning) -> Tensor:
        """q [T, Hq, D], k [T, Hkv, D], v [T, Hkv, Dv] to [T, Hq, Dv]."""
        now = self.step.tensors
        assert now is not None
        self.write(k, v, self.keys, self.values, now.slots, **self.scales)
        return self.attend_to(q, meaning)

    def attend_to(self, q: Tensor, meaning: Meaning) -> Tensor:
        """The same when keys and values are written already."""
        now = self.step.tensors
        assert now is not None
        reach = self.reach or meaning.reach
        if reach.chunk:
            now = now.chunks[reach.chunk]
        return self.attend(
            q, self.keys, self.values, now.table, now.starts, now.lengths, scale=meaning.scale, window=reach.window,
            softcap=meaning.softcap, sinks=meaning.sinks, **self.scales,
        )  # fmt: skip


def kept_as(keys: Tensor, scales: Mapping[str, Tensor]) -> Mapping[str, str]:
    """What ops are asked beside the rest of a case where pages have scales."""
    return {"kv_dtype": str(keys.dtype).removeprefix("torch.")} if scales else {}


class Repeated:
    """A module that attends several times in a step, each time to pages of its own."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._number = self._calls = 0

    def run(self, *given: Any) -> Tensor:
        """As `Layer.run`, for the next of the calls of the step."""
        step = self._layers[0].step
        self._calls = self._calls + 1 if step.number == self._number else 0
        self._number = step.number
        return self._layers[self._calls].run(*given)


@dataclass
class Recorder:
    """Stands for pages while the layers of a model are found; notes every call of attention in order.

    `context`: how many tokens a sequence has at most. `measured`: of each call, whether a mask said how far it sees.
    """

    context: int
    modules: list[Any] = field(default_factory=list)
    shapes: list[LayerShape] = field(default_factory=list)
    meanings: list[Meaning] = field(default_factory=list)
    measured: list[bool] = field(default_factory=list)

    def note(self, module: Any, k: Tensor, v: Tensor, meaning: Meaning, mask: Described | None) -> None:
        """Raises Refused when what the mask says is unknown here."""
        if mask is not None:
            meaning = replace(meaning, reach=measure(mask.rule, self.context))
        self.modules.append(module)
        self.meanings.append(meaning)
        self.measured.append(mask is not None)
        self.shapes.append(LayerShape(k.shape[1], k.shape[3], v.shape[3]))


def paged_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """What transformers calls: q [1, Hq, T, D], k and v [1, Hkv, T, D]; answers [1, T, Hq, Dv].

    Raises Refused for an argument it does not know.
    """
    layer = getattr(module, ATTRIBUTE, None)
    if isinstance(layer, Recorder):
        mask = attention_mask if isinstance(attention_mask, Described) else None
        meaning = _meaning(module, query, attention_mask if mask is None else None, options, mask is not None)
        layer.note(module, key, value, meaning, mask)
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None
    if layer is None:
        raise Refused("a layer that was not seen when the model was loaded takes part")
    meaning = _meaning(module, query, attention_mask, options, getattr(layer, "reach", None) is not None)
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return layer.run(q, k, v, meaning)[None], None


def _meaning(module: Any, query: Tensor, mask: Any, options: Mapping[str, Any], causal: bool) -> Meaning:
    """Raises Refused for what this function does not do. `causal`: its mask says that it is."""
    rest = {name: value for name, value in options.items() if name not in IGNORED}
    scale = rest.pop("scaling", None)
    window = rest.pop("sliding_window", None) or 0
    softcap = rest.pop("softcap", None) or 0.0
    sinks = rest.pop("s_aux", None)
    said = rest.pop("is_causal", None)
    if said is None:
        said = getattr(module, "is_causal", True)
    if not (causal or said):
        raise Refused("its attention is not causal")
    if mask is not None:
        raise Refused("it builds a mask of its own")
    if query.shape[0] != 1:
        raise Refused("it changes the batch dimension before attention")
    for name, value in rest.items():
        if value is not None and value is not False:
            raise Refused(f"it calls attention with {name}, which is not known")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return Meaning(float(scale), Reach(int(window)), float(softcap), sinks)


def attach_all(modules: Sequence[Any], layers: Sequence[Layer]) -> None:
    """Give each call of attention its pages; a module that was noted several times has several."""
    by_module: dict[int, list[Layer]] = {}
    for module, layer in zip(modules, layers, strict=True):
        by_module.setdefault(id(module), []).append(layer)
    for module in modules:
        mine = by_module[id(module)]
        attach(module, mine[0] if len(mine) == 1 else Repeated(mine))


def attach(module: Any, layer: Layer | Repeated | Recorder | None) -> None:
    """Give one attention module its pages, or take them away; one that stands for another passes them on."""
    holder = module.__dict__.get("inner", module)
    if layer is None:
        holder.__dict__.pop(ATTRIBUTE, None)
    else:
        holder.__dict__[ATTRIBUTE] = layer


def record(module: torch.nn.Module, context: int, forward: Callable[[], Any]) -> Recorder:
    """The attention layers of a model, found by running `forward` once. Raises Refused."""
    recorder = Recorder(context)
    parts = list(module.modules())
    for part in parts:
        attach(part, recorder)
    try:
        forward()
    finally:
        for part in parts:
            attach(part, None)
    return recorder


AttentionInterface.register(NAME, paged_attention)
AttentionInterface.register(PROBE, paged_attention)

"""Batches of an encoder without padding: between its first and its last layer the tokens of all lines lie packed in
one row, and attention goes by where each line begins.

Hooks on the layers pack and unpack, so that embeddings, positions and heads see the padded batch that they expect. What
attention would be told by a mask is asked for when the model is looked at: a layer that does not let every token see
every other is refused, and the model then keeps its padded batches. Called in any other way than with a batch to pack,
the model answers as it did before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..ops.table import OpTable
from .attention import IGNORED
from .reach import Described, Refused, Rule

NAME = "llmos_packed"
ATTRIBUTE = "_llmos_packing"
PLACES = 24
"""Queries and keys that a rule is asked about, spread over the context."""


@dataclass
class Rows:
    """The batch under way: its shape before it is packed, the places of its tokens in that [T], where each line begins
    in the row [lines + 1] int32."""

    lines: int
    size: int
    places: Tensor
    starts: Tensor

    def pack(self, value: Any) -> Any:
        """A tensor [lines or 1, size, ..] as [1, T, ..]; others as they are, and so what a tuple holds."""
        if isinstance(value, tuple):
            return tuple(self.pack(each) for each in value)
        if not isinstance(value, Tensor) or value.ndim < 2 or value.shape[1] != self.size:
            return value
        if value.shape[0] not in (1, self.lines):
            return value
        return value.expand(self.lines, *value.shape[1:]).flatten(0, 1)[self.places][None]

    def unpack(self, value: Tensor) -> Tensor:
        """States [1, T, H] as [lines, size, H], zero where there is no token."""
        padded = value.new_zeros(self.lines * self.size, *value.shape[2:])
        padded[self.places] = value[0]
        return padded.view(self.lines, self.size, *value.shape[2:])


class Postponed(Described):
    """A mask that is made when it is needed after all."""

    def __init__(self, rule: Rule, given: Mapping[str, Any]) -> None:
        super().__init__(rule)
        self._given = given
        self._made: list[Any] = []

    def made(self, attention: str) -> Any:
        """What transformers would have made for an attention function."""
        if not self._made:
            make = ALL_MASK_ATTENTION_FUNCTIONS[attention]
            self._made.append(make(mask_function=self.rule, **self._given))
        return self._made[0]


def postpone(mask_function: Rule, **given: Any) -> Postponed:
    """What transformers calls to make a mask."""
    return Postponed(mask_function, given)


@dataclass
class Packing:
    """One model set to packed attention; `plain` is the one it had. `seen`: its attention modules in the order of their
    calls, while it is looked at."""

    attend: Callable[..., Tensor]
    context: int
    plain: str
    rows: Rows | None = None
    seen: list[nn.Module] | None = None
    hooks: list[Any] = field(default_factory=list)

    def attended(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q [1, Hq, T, D], k and v alike, to [1, T, Hq, Dv]."""
        if self.seen is not None:
            self.seen.append(module)
            return q.new_zeros(q.shape[0], q.shape[2], q.shape[1], v.shape[3])
        assert self.rows is not None
        states = (part[0].transpose(0, 1) for part in (q, k, v))
        return self.attend(*states, self.rows.starts, scale)[None]

    @contextmanager
    def batch(self, mask: Tensor) -> Iterator[None]:
        """While it lasts the layers run packed; `mask` [lines, size] is 1 for tokens."""
        places = mask.flatten().nonzero()[:, 0]
        starts = torch.zeros(len(mask) + 1, dtype=torch.int32, device=mask.device)
        starts[1:] = mask.sum(1).cumsum(0)
        self.rows = Rows(mask.shape[0], mask.shape[1], places, starts)
        try:
            yield
        finally:
            self.rows = None

    def enter(self, _module: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Before each layer: pack what it is given."""
        if self.rows is None:
            return None
        return self.rows.pack(given), {name: self.rows.pack(value) for name, value in options.items()}

    def leave(self, _module: nn.Module, _given: Any, answer: Any) -> Any:
        """After the last layer: unpack its states."""
        if self.rows is None:
            return None
        if isinstance(answer, tuple):
            return (self.rows.unpack(answer[0]), *answer[1:])
        return self.rows.unpack(answer)


def fits(mask: Tensor) -> bool:
    """Whether all tokens of a batch come before its padding: padding inside a line is left to the model's own mask."""
    return bool((mask[:, 1:] <= mask[:, :-1]).all()) and bool(mask[:, 0].all())


def pack(model: Any, context: int, ops: OpTable, forward: Callable[[], Any]) -> Packing:
    """Set a model to packed attention, anew if it is. `forward` takes some lines through it.

    Raises Refused, with the model as it was, when what it does in attention is not known here.
    """
    before = model.__dict__.get(ATTRIBUTE)
    if before is not None:
        unpack(model, before)
    if not model._can_set_attn_implementation():
        raise Refused("its attention is not called by the library's interface")
    plain = model.config._attn_implementation
    if plain not in ALL_ATTENTION_FUNCTIONS:
        raise Refused(f"its attention is its own: {plain}")
    first = next(iter(model.parameters()))
    spec = {"device": first.device.type, "dtype": str(first.dtype).removeprefix("torch.")}
    attend = ops.choose("packed_attention", spec).implementation.call
    packing, parts = Packing(attend, context, plain), list(model.modules())
    model.set_attn_implementation(NAME)
    for part in parts:
        part.__dict__[ATTRIBUTE] = packing
    layers: list[nn.Module] = []
    try:
        layers += _layers(model, packing, forward)
    finally:
        if not layers:
            unpack(model, packing)
    packing.hooks += [layer.register_forward_pre_hook(packing.enter, with_kwargs=True) for layer in layers]
    packing.hooks.append(layers[-1].register_forward_hook(packing.leave))
    return packing


def unpack(model: Any, packing: Packing) -> None:
    """The model as it was before."""
    for hook in packing.hooks:
        hook.remove()
    for part in model.modules():
        part.__dict__.pop(ATTRIBUTE, None)
    model.set_attn_implementation(packing.plain)


def _layers(model: nn.Module, packing: Packing, forward: Callable[[], Any]) -> list[nn.Module]:
    """The layers of the model, each of which attends once, in their order. Raises Refused."""
    packing.seen = []
    try:
        forward()
        seen = packing.seen
    finally:
        packing.seen = None
    for stack in model.modules():
        if isinstance(stack, nn.ModuleList) and len(stack) == len(seen) > 0:
            layers = list(stack)
            if all(any(part is one for part in layer.modules()) for layer, one in zip(layers, seen, strict=True)):
                return layers
    raise Refused(f"its {len(seen)} calls of attention are not one for each of its layers")


def packed_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, Any]:
    """What transformers calls: q [lines, Hq, T, D], k and v [lines, Hkv, T, D]; answers [lines, T, Hq, Dv].

    Raises Refused for an argument it does not know.
    """
    packing: Packing | None = getattr(module, ATTRIBUTE, None)
    if packing is None:
        raise Refused("a layer that was not seen when the model was loaded takes part")
    if packing.seen is not None:
        _check(module, attention_mask, options, packing.context)
    elif packing.rows is None:
        mask = attention_mask.made(packing.plain) if isinstance(attention_mask, Postponed) else attention_mask
        answer: tuple[Tensor, Any] = ALL_ATTENTION_FUNCTIONS[packing.plain](module, query, key, value, mask, **options)
        return answer
    scale = options.get("scaling")
    return packing.attended(module, query, key, value, query.shape[-1] ** -0.5 if scale is None else scale), None


def _check(module: Any, mask: Any, options: Mapping[str, Any], context: int) -> None:
    """Raises Refused for what this function does not do."""
    said = options.get("is_causal")
    if getattr(module, "is_causal", False) if said is None else said:
        raise Refused("its attention is causal")
    if not isinstance(mask, Described):
        raise Refused("its mask is not made by the library's rules")
    if not _sees_all(mask.rule, context):
        raise Refused("its mask hides more than padding")
    for name, value in options.items():
        if name not in IGNORED and name not in ("scaling", "is_causal") and value is not None and value is not False:
            raise Refused(f"it calls attention with {name}, which is not known")


def _sees_all(rule: Rule, context: int) -> bool:
    """Whether queries everywhere in the context see keys everywhere."""
    places, zero = torch.linspace(0, context - 1, PLACES).long(), torch.tensor(0)
    return all(bool(rule(zero, zero, query, places).expand_as(places).all()) for query in places)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, postpone)

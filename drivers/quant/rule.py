"""Which layers of a model are quantized, and how: the rule for all methods.

A layer stays as it is
- where its name fits one of the patterns to be kept;
- where it decides a route (a router or its gate), or has fewer than 16 outputs (classifiers): a small error there
  changes a choice, and there is nothing to save;
- where numbers and scales would need more than three quarters of the bits of the model's dtype.

The output head gets 8 bits where the others have 4, unless another width is asked for it: its error goes straight
into the answer. What a wish for fewer bytes does to single layers is in `budget`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from llmos.syscalls.errors import BadArgument

from ..ops.quantized import Scheme

HEADS = frozenset({"lm_head", "embed_out", "output_projection"})
"""Last part of the name of a layer that makes the scores of tokens."""
ROUTERS = frozenset({"gate", "router", "shared_expert_gate", "classifier"})
FEW_OUTPUTS = 16
SPARED = 0.75
"""A layer is quantized where it then takes at most this share of its bits."""
MODEL_BITS = 16
NARROWEST_HEAD = 8

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("query", "key", "value"), ("w1", "w3"))
"""Layers with one input, which are merged into one when they are served: they get one scheme."""


@dataclass(frozen=True)
class Wish:
    """What somebody asks for, with the meaning of `llmos.syscalls.types.Quant`."""

    width: int = 8
    group: int = 128
    kind: str = "int"
    shift: bool = False
    method: str = "rtn"
    activations: str = "auto"
    head: int = NARROWEST_HEAD
    byte_budget: int | None = None
    keep: Sequence[str] = ()

    @classmethod
    def of(cls, quant: Mapping[str, Any]) -> Wish:
        """From the fields of a message. Raises BadArgument for one that is not known, or for a scheme there is not."""
        known = {field.name for field in fields(cls)}
        for name in quant:
            if name not in known:
                want = ", ".join(sorted(known))
                raise BadArgument(f"quant has no {name!r}; it has {want}", name="quant", got=name, want=want)
        wish = cls(**quant)
        wish.scheme()
        return wish

    def scheme(self) -> Scheme:
        """Of ordinary layers. Raises BadArgument."""
        return Scheme(self.width, self.group, self.kind, self.shift)

    def head_scheme(self) -> Scheme | None:
        """Of the output head; None leaves it as it is."""
        width = max(self.head, self.width)
        return None if width > 8 else wider(self.scheme()) if width == 8 else self.scheme()

    @property
    def short(self) -> str:
        """Such as w4-g128, w8a8, fp8: what manifests and lists show. Without inputs where the device chooses theirs."""
        if self.kind == "float":
            return "fp8"
        inputs = {"int8": "a8", "float8": "a8", "model": "a16"}.get(self.activations, "")
        return f"w{self.width}{inputs}{f'-g{self.group}' if self.group else ''}"


def wider(scheme: Scheme) -> Scheme:
    """The same with 8 bits, which need no shift."""
    return scheme if scheme.width == 8 else replace(scheme, width=8, shift=False)


def is_head(name: str) -> bool:
    return name.rpartition(".")[2] in HEADS


def kept(name: str, patterns: Collection[str]) -> bool:
    """Whether a layer's name, or its last part, fits a pattern."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[2], pattern) for pattern in patterns)


def schemes(
    modules: Mapping[str, tuple[int, int]], wish: Wish, heads: Collection[str] | None = None
) -> dict[str, Scheme]:
    """The scheme of each linear layer that is quantized, from names and (outputs, inputs).

    `heads` names the output heads where the caller knows them; else they are known by their names. Layers that would
    be merged get one scheme: where one of them is kept, all are.
    """
    found = {}
    for name, (outs, ins) in modules.items():
        head = is_head(name) if heads is None else name in heads
        scheme = wish.head_scheme() if head else wish.scheme()
        if scheme is not None and not kept(name, wish.keep) and not _spared(name, outs, ins, scheme):
            found[name] = scheme
    units = together(modules)
    whole = {unit: all(name in found for name in names) for unit, names in units.items()}
    return {name: found[name] for unit, names in units.items() for name in names if whole[unit]}


def _spared(name: str, outs: int, ins: int, scheme: Scheme) -> bool:
    small = outs < FEW_OUTPUTS or name.rpartition(".")[2] in ROUTERS
    return small or scheme.bits_per_weight(ins) > SPARED * MODEL_BITS


def together(names: Collection[str]) -> dict[str, list[str]]:
    """Layers that must have one scheme, under the name of the first of them, in the order given."""
    found: dict[str, list[str]] = {}
    leads: dict[tuple[str, int], str] = {}
    for name in names:
        parent, _, last = name.rpartition(".")
        kind = next((at for at, siblings in enumerate(SIBLINGS) if last in siblings), None)
        lead = name if kind is None else leads.setdefault((parent, kind), name)
        found.setdefault(lead, []).append(name)
    return found

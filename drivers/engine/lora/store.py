"""The adapters of one base module: added, found and dropped by name, each in a slot that its rows carry.

A layer is wrapped when the first adapter changes it, and unwrapped with the last one, so that a base without adapters
is as it was loaded. Every name is one version of an adapter: to replace one, add the new version under a new name and
drop the old one when no row has its slot any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llmos.syscalls.errors import BadModel, NotSupported

from ...ops.replay import Variant
from ...ops.table import OpTable, Spec
from ..surgery.merged import GROUPS
from .layout import BANK_SLOTS, BASE, AdapterStep
from .target import Bank, LoraTarget, MergedTarget, SharedInput
from .weights import LoraPair, LoraWeights

PRODUCTS = ("lora_shrink", "lora_expand")
SEGMENTS, SLOTS = "segments", "slots"
"""What `where` is in the spec of the two ops."""


@dataclass(frozen=True)
class Place:
    """Where a layer is: its parent module, the shared input under the parent's path, its number among the siblings."""

    parent: str
    siblings: tuple[str, ...]
    member: int

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        return self.parent, self.siblings


class LoraStore:
    """All adapters of one module. Slots are given out from the lowest free one of their rank's banks."""

    def __init__(self, module: Any) -> None:
        self.step = AdapterStep(next(iter(module.parameters())).device)
        self._module = module
        self._slots: dict[str, int] = {}
        self._ranks: list[int] = []
        """The rank of each bank; 0 for one that holds nothing."""
        self._shared: dict[tuple[str, tuple[str, ...]], SharedInput] = {}
        self._targets: dict[str, Place] = {}
        self._bytes: dict[str, int] = {}
        self._stacked = 0
        self._changes = 0

    @property
    def variant(self) -> Variant:
        """What the adapters of the step under way decide: it is the same for steps with the same groups, until an
        adapter is added or dropped."""
        step = self.step
        return Variant(self._changes, (step.packed.tokens, step.packed.groups) if step.active else None)

    def use_slots(self, ids: Tensor) -> None:
        """A step of rows of one token each, whose slots are in `ids` [T] int32 on the device: -1 for the bare base, and
        for rows that only fill up.

        What runs in such a step depends on T and on the adapters that there are, not on the values of `ids`, which are
        read when it runs: it can be captured, and repeated while the epoch of `variant` is the same. Only for ops that
        take slots, see `slots_refused`.
        """
        self.step.set_slots(ids, len(self._ranks))

    def slot(self, name: str) -> int:
        """The slot of an adapter; `BASE` for the empty name. Raises KeyError."""
        return self._slots[name] if name else BASE

    def add(self, name: str, weights: LoraWeights, ops: OpTable, what: str) -> None:
        """Put an adapter beside its layers; `what` it is for errors.

        Raises BadModel naming the tensor that does not fit, NotSupported; then nothing has changed.
        """
        pairs: dict[str, LoraPair] = {}
        for path, pair in weights.pairs.items():
            target = self._path(path, weights, what)
            if target in pairs:
                why = f"it changes {target} twice"
                raise BadModel(f"{weights.file} of {what}: {why}", file=weights.file, why=why)
            pairs[target] = pair
        fitting = {path: self._fit(path, pair, weights.file, what) for path, pair in pairs.items()}
        self._check_copies(weights, what)
        self._check_complete(weights, pairs, what)
        self._changes += 1
        rank = _power(max(pair.a.shape[0] for pair in fitting.values()))
        slot = self._free_slot(rank)
        self._slots[name] = slot
        chosen: dict[tuple[str, tuple[str, ...]], dict[int, LoraPair]] = {}
        for path, pair in fitting.items():
            place = self._wrap(path, ops)
            chosen.setdefault(place.key, {})[place.member] = pair
        for key, shared in self._shared.items():
            self._set(shared, slot, chosen.get(key, {}))
        self._bytes[name] = sum(_bytes(pair) for pair in fitting.values())

    def retire(self, name: str) -> None:
        """Count an adapter's bytes as spare from now on; rows may have its slot until it is dropped."""
        self._bytes[name] = 0

    def drop(self, name: str) -> None:
        """Forget an adapter. Its slot is free for another at once, so that no row may have it any more."""
        self._changes += 1
        slot = self._slots.pop(name)
        del self._bytes[name]
        for shared in self._shared.values():
            self._set(shared, slot, {})
        if all(other // BANK_SLOTS != slot // BANK_SLOTS for other in self._slots.values()):
            self._ranks[slot // BANK_SLOTS] = 0
        for path, place in list(self._targets.items()):
            if not self._shared[place.key].banks:
                self._unwrap(path)
        self._shared = {key: shared for key, shared in self._shared.items() if shared.banks}

    def weights(self, name: str) -> LoraWeights:
        """An adapter's pairs as they are used, the scale multiplied in; copies that its drop leaves alone."""
        found = {}
        for path, place in self._targets.items():
            pair = self._pairs(self._slots[name], place.key).get(place.member)
            if pair is not None:
                found[path] = LoraPair(self._own(pair.a), self._own(pair.b))
        return LoraWeights(found, name)

    def bytes(self, name: str) -> int:
        """Bytes of an adapter's matrices."""
        return self._bytes[name]

    def spare_bytes(self) -> int:
        """Bytes of the stacks that no adapter has: of places that became free, and of ranks below the bank's."""
        return self._stacked - sum(self._bytes.values())

    # ---- fitting

    def _path(self, path: str, weights: LoraWeights, what: str) -> str:
        """The path of a target in this module, which may have one level more or less. Raises BadModel."""
        prefix = f"{self._module.base_model_prefix}."
        for candidate in (path, prefix + path, path.removeprefix(prefix)):
            if self._layer(candidate) is not None:
                return candidate
        why = f"it does not fit the base, which has no layer {path}"
        raise BadModel(f"{weights.file} of {what}: {why}", file=weights.file, why=why)

    def _layer(self, path: str) -> nn.Module | None:
        """The layer at a path, without what wraps it."""
        try:
            found = self._module.get_submodule(path)
        except AttributeError:
            return None
        return found.base if isinstance(found, LoraTarget) else found

    def _fit(self, path: str, pair: LoraPair, file: str, what: str) -> LoraPair:
        """A pair as the base wants it, the scale in its second matrix. Raises BadModel, NotSupported."""
        layer = self._layer(path)
        widths = None if layer is None else widths_of(layer)
        if widths is None:
            why = f"its target {path} is a {type(layer).__name__}, not a linear layer"
            raise NotSupported(f"{what}: {why}", why=why)
        wanted = {"A": [pair.a.shape[0], widths[0]], "B": [widths[1], pair.a.shape[0]]}
        for side, tensor in (("A", pair.a), ("B", pair.b)):
            if list(tensor.shape) != wanted[side]:
                shapes = f"has the shape {list(tensor.shape)}, not {wanted[side]}"
                why = f"it does not fit the base: lora_{side} of {path} {shapes}"
                raise BadModel(f"{file} of {what}: {why}", file=file, why=why)
        made = LoraPair(self._own(pair.a.float()), self._own(pair.b.float() * pair.scale))
        for side, tensor in (("A", made.a), ("B", made.b)):
            if not bool(tensor.isfinite().all()):
                why = f"lora_{side} of {path} has values that are not finite in {self._module.dtype}"
                raise BadModel(f"{file} of {what}: {why}", file=file, why=why)
        return made

    def _own(self, tensor: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return tensor.to(device=self.step.device, dtype=self._module.dtype, copy=True)

    def _check_copies(self, weights: LoraWeights, what: str) -> None:
        """Weights of the base that were saved with the adapter must be those it has. Raises NotSupported."""
        for path, tensor in weights.copies.items():
            own = getattr(self._layer(path), "weight", None)
            same = isinstance(own, Tensor) and own.shape == tensor.shape and torch.equal(tensor.to(own), own)
            if not same:
                why = f"the whole weight of {path} is saved beside it, and differs from the base's"
                raise NotSupported(f"{what}: {why}", why=why)

    def _check_complete(self, weights: LoraWeights, found: Mapping[str, LoraPair], what: str) -> None:
        """Every layer that the adapter's configuration names must have its matrices. Raises BadModel."""
        for path in self._layers() if weights.complete else ():
            named = any(path == name or path.endswith(f".{name}") for name in weights.complete)
            if named and path not in found:
                why = f"it does not fit the base: lora_A and lora_B of {path} are missing"
                raise BadModel(f"{weights.file} of {what}: {why}", file=weights.file, why=why)

    def _layers(self) -> Iterator[str]:
        """The paths of all linear layers."""
        wrapped = {id(module.base) for module in self._module.modules() if isinstance(module, LoraTarget)}
        for path, module in self._module.named_modules():
            if id(module) not in wrapped and widths_of(module) is not None:
                yield path

    # ---- slots and stacks

    def _free_slot(self, rank: int) -> int:
        taken = set(self._slots.values())
        for bank, held in enumerate(self._ranks):
            if held == rank:
                for slot in range(bank * BANK_SLOTS, (bank + 1) * BANK_SLOTS):
                    if slot not in taken:
                        return slot
        if 0 not in self._ranks:
            self._ranks.append(0)
        bank = self._ranks.index(0)
        self._ranks[bank] = rank
        return bank * BANK_SLOTS

    def _set(self, shared: SharedInput, slot: int, members: Mapping[int, LoraPair]) -> None:
        """Fill or empty a place of a bank in one shared input; all stacks of a bank have places for all its slots."""
        number, place = divmod(slot, BANK_SLOTS)
        bank = shared.banks.get(number) or Bank(self._ranks[number])
        taken = [other % BANK_SLOTS for other in self._slots.values() if other // BANK_SLOTS == number]
        places = max(taken, default=0) + 1
        self._stacked -= bank.stacked_bytes()
        with torch.inference_mode(False), torch.no_grad():
            bank.set(place, members, places)
        self._stacked += bank.stacked_bytes()
        if bank.pairs:
            shared.banks[number] = bank
        else:
            shared.banks.pop(number, None)

    def _pairs(self, slot: int, key: tuple[str, tuple[str, ...]]) -> Mapping[int, LoraPair]:
        bank = self._shared[key].banks.get(slot // BANK_SLOTS)
        return {} if bank is None else bank.pairs.get(slot % BANK_SLOTS, {})

    # ---- wrapping

    def _wrap(self, path: str, ops: OpTable) -> Place:
        """See that a layer is a target, with all parts of its product if it is part of one."""
        if path in self._targets:
            return self._targets[path]
        parent, _, name = path.rpartition(".")
        holder = self._module.get_submodule(parent)
        siblings = _siblings(holder, name)
        merged = all(hasattr(getattr(holder, sibling), "whole") for sibling in siblings)
        key = parent, siblings
        if key not in self._shared:
            spec = {"device": self._module.device.type, "dtype": str(self._module.dtype).removeprefix("torch.")}
            shrink, expand = (ops.choose(op, {**spec, "where": SEGMENTS}).implementation.call for op in PRODUCTS)
            self._shared[key] = SharedInput(self.step, shrink, expand)
        shared = self._shared[key]
        widths = [getattr(holder, sibling).out_features for sibling in siblings] if merged else []
        for sibling in siblings if merged else (name,):
            member, base = siblings.index(sibling), getattr(holder, sibling)
            made = MergedTarget(base, shared, member, widths) if merged else LoraTarget(base, shared, member)
            setattr(holder, sibling, made)
            self._targets[f"{parent}.{sibling}" if parent else sibling] = Place(parent, siblings, member)
            shared.members += 1
        return self._targets[path]

    def _unwrap(self, path: str) -> None:
        parent, _, name = path.rpartition(".")
        holder = self._module.get_submodule(parent)
        setattr(holder, name, getattr(holder, name).base)
        del self._targets[path]


def slots_refused(ops: OpTable, spec: Spec) -> str:
    """Why what serves the products of adapters by segments does not serve them by slots; empty where it does. One
    provider must do both: it may put off what it is asked for, and another one's answer would come too early.
    """
    for op in PRODUCTS:
        usual = ops.choose(op, {**spec, "where": SEGMENTS}).implementation
        fits, reason = usual.supports({**spec, "where": SLOTS})
        if not fits:
            return f"{usual.name}: {reason}"
    return ""


def widths_of(module: nn.Module) -> tuple[int, int] | None:
    """Input and output width of a linear layer of any kind; None for other modules."""
    if isinstance(module, LoraTarget):
        module = module.base
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    widths = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (widths[0], widths[1]) if isinstance(widths[0], int) and isinstance(widths[1], int) else None


def _siblings(holder: nn.Module, name: str) -> tuple[str, ...]:
    """The layers that read the same input as the one called `name`, itself among them."""
    for names in GROUPS:
        if name in names and all(isinstance(getattr(holder, other, None), nn.Module) for other in names):
            widths = {(widths_of(getattr(holder, other)) or (0,))[0] for other in names}
            if len(widths) == 1:
                return names
    return (name,)


def _power(rank: int) -> int:
    """The next power of two."""
    return 1 << (rank - 1).bit_length()


def _bytes(pair: LoraPair) -> int:
    return (pair.a.numel() + pair.b.numel()) * pair.a.element_size()

"""Orthogonal subspaces: what a new adapter reads is orthogonal to what earlier ones read (O-LoRA, arXiv:2310.14152)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from llmos.syscalls.errors import BadArgument

from .data.batches import Batch
from .objectives.protocol import Loss, Outcome

_A = ".lora_A."
_WRAPPED = "base_model.model."


def kept_apart(
    loss: Loss, weigh: Callable[[Batch], float], directions: Sequence[Mapping[str, Tensor]], weight: float
) -> Loss:
    """A loss with `weight` times the term of `overlap`, as often as the micro-batch weighs, so that a step has it once,
    however many micro-batches it has; held-out rows are judged without it."""

    def passed(module: nn.Module, batch: Batch) -> Outcome:
        outcome = loss(module, batch)
        if not module.training:
            return outcome
        return replace(outcome, total=outcome.total + weight * weigh(batch) * overlap(module, directions))

    return passed


def overlap(adapted: Any, directions: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """float32 scalar: the sum over layers and earlier adapters of the squared numbers of A_earlier At."""
    found = [
        (earlier[path].to(value) @ value.T).square().sum()
        for path, value in _matrices(adapted) for earlier in directions if path in earlier
    ]  # fmt: skip
    return torch.stack(found).sum()


def check(adapted: Any, directions: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> None:
    """Raises BadArgument where an earlier adapter has no layer in common, or one that is as wide as another base's."""
    for earlier, name in zip(directions, names, strict=True):
        common = [(path, value) for path, value in _matrices(adapted) if path in earlier]
        fits = [earlier[path].shape[1] == value.shape[1] for path, value in common]
        if not fits or not all(fits):
            want = "an adapter of the same base that changes some of the same layers"
            said = f"orthogonal: {name} has no layer in common with what is learned here; it takes {want}"
            raise BadArgument(said, name="to", got=name, want=want)


def _matrices(adapted: Any) -> list[tuple[str, Tensor]]:
    """A of each layer that has one, by the path of the layer in the base."""
    return [
        (name.removeprefix(_WRAPPED).partition(_A)[0], value)
        for name, value in adapted.named_parameters() if _A in name
    ]  # fmt: skip

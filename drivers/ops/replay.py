"""Calls of ops that are repeated: the interface, and the reference that repeats nothing.

The op `replay` of the table makes one of these for one function; how it saves the asking is the provider's affair (the
processor's own notes packed problems, a graphics card captures a graph).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Variant(NamedTuple):
    """What a function depends on beside its inputs: `epoch` changes with the tensors that it keeps, `state` names
    whatever else decides which ops it asks for."""

    epoch: int
    state: Hashable


class Replay(Protocol):
    """One function of tensors that calls nothing but ops of one provider: on its inputs, on tensors that stay where
    they are while the epoch is the same, and on what such ops made. It answers a tensor of its first input's shape.
    """

    def __call__(self, inputs: Sequence[Tensor], variant: Variant | None, run: Callable[[], Tensor]) -> Tensor:
        """What `run` answers for `inputs` [1, T, H] and others. Without a variant nothing is repeated."""


class Plain:
    """Runs it."""

    def __call__(self, inputs: Sequence[Tensor], variant: Variant | None, run: Callable[[], Tensor]) -> Tensor:
        return run()

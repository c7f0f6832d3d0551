"""Calls of ops that are repeated: the interface, and the reference that repeats nothing.

The op `replay` of the table makes one of these for one function; how it saves the asking is the provider's affair (the
processor's own notes packed problems, a graphics card captures a graph).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, Protocol

from torch import Tensor


class Variant(NamedTuple):
    """What a function depends on beside its inputs: `epoch` changes with the tensors that it keeps, `state` names
    whatever else decides which ops it asks for."""

    epoch: int
    state: Hashable


class Inputs:
    """Tensors that several functions read in one step, with what each asks of them."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = tuple(tensors)
        self.shapes = tuple((tensor.shape, tensor.stride()) for tensor in self.tensors)
        self.addresses = [tensor.data_ptr() for tensor in self.tensors]


class Replay(Protocol):
    """One function of tensors that calls nothing but ops of one provider: on x and other inputs, on tensors that stay
    where they are while the epoch is the same, and on what such ops made. It answers a tensor of the shape of x.
    """

    def __call__(self, x: Tensor, inputs: Inputs, variant: Variant | None, run: Callable[[], Tensor]) -> Tensor:
        """What `run` answers for x [1, T, H] and the inputs. Without a variant nothing is repeated."""


class Plain:
    """Runs it."""

    def __call__(self, x: Tensor, inputs: Inputs, variant: Variant | None, run: Callable[[], Tensor]) -> Tensor:
        return run()

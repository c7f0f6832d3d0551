"""What implementations of ops refuse, in the same words."""

from __future__ import annotations

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument, NotSupported


def no_gradient(op: str, *tensors: Tensor | None) -> None:
    """Raises NotSupported when a gradient through these would be lost."""
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        raise NotSupported(f"{op} has no gradient; use the reference, or torch.no_grad()", why="no gradient")


def mismatch(op: str, name: str, got: object, want: object) -> BadArgument:
    """The error of an argument that is not as it must be."""
    return BadArgument(f"{op}: {name} is {got}; expected {want}", name=name, got=str(got), want=str(want))

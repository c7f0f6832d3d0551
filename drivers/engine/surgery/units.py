"""Norms and gated units, each as one op: proposed for modules that look like one, kept where the answers are equal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmos.syscalls.errors import LlmosError

from ...ops.float8 import Float8Rows
from ...ops.table import Implementation, OpTable, Spec
from ..memory import device_of
from .merged import MergedLinear

REFERENCE = "torch"
TRIAL_ROWS = 5
TRIAL_SCALE = 3.0
UNITS: Sequence[str] = ("silu_mul", "gelu_tanh_mul", "gelu_mul")


class FusedNorm(nn.Module):
    """RMSNorm in one op; see `rms_norm` for what the two flags mean."""

    def __init__(self, weight: nn.Parameter, eps: float, unit_offset: bool, round_first: bool) -> None:
        super().__init__()
        self.weight = weight
        self.variance_epsilon = self.eps = eps
        self.unit_offset = unit_offset
        self.round_first = round_first
        self.op: Callable[..., Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x [.., H] to [.., H]."""
        assert self.op is not None
        return self.op(x, self.weight, self.eps, self.unit_offset, self.round_first)


class FusedLayerNorm(nn.Module):
    """LayerNorm in one op, of a provider of its own; the library's is one op already."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, eps: float) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.normalized_shape = tuple(weight.shape)
        self.eps = eps
        self.op: Callable[..., Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x [.., H] to [.., H]."""
        assert self.op is not None
        return self.op(x, self.weight, self.bias, self.eps)


class FusedUnit(nn.Module):
    """down(act(gate(x)) * up(x)) with one product for gate and up and one op for what is between."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.gate_proj: Any = original.gate_proj
        self.up_proj: Any = original.up_proj
        self.down_proj: Any = original.down_proj
        self.op: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor | Float8Rows) -> Tensor:
        """x [.., H] to [.., H]; e4m3 where gate and up take it."""
        assert self.op is not None
        both: Tensor = self.gate_proj.whole(x)
        down: Tensor = self.down_proj(self.op(both))
        return down


def fused_norm(module: nn.Module, ops: OpTable, spec: Spec) -> FusedNorm | FusedLayerNorm | None:
    """A fused norm that answers exactly as the module does; None when there is none."""
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    named = dict(module.named_parameters())
    weight = named.get("weight")
    if not set(named) <= {"weight", "bias"} or weight is None or weight.dim() != 1 or not isinstance(eps, float):
        return None
    centred = _fused_layer_norm(module, weight, named.get("bias"), eps, ops, spec)
    if centred is not None or "bias" in named:
        return centred
    reference = ops.named("rms_norm", REFERENCE).call
    dtype: torch.dtype = getattr(torch, spec["dtype"])
    narrow = weight.to(dtype)
    if not torch.equal(narrow.to(weight.dtype), weight):  # some models keep these in float32
        return None
    x = _trial(weight.shape[0], narrow)
    wanted = _answer(module, x)
    for unit_offset, round_first in itertools.product((False, True), repeat=2):
        if wanted is not None and torch.equal(reference(x, narrow, eps, unit_offset, round_first), wanted):
            made = FusedNorm(nn.Parameter(narrow, requires_grad=False), eps, unit_offset, round_first)
            made.op = _chosen(ops, "rms_norm", spec).call
            return made
    return None


def _fused_layer_norm(
    module: nn.Module, weight: nn.Parameter, bias: nn.Parameter | None, eps: float, ops: OpTable, spec: Spec
) -> FusedLayerNorm | None:
    chosen = _chosen(ops, "layer_norm", spec)
    vectors = [vector for vector in (weight, bias) if vector is not None]
    alike = all(
        vector.shape == weight.shape and str(vector.dtype) == f"torch.{spec['dtype']}" for vector in vectors
    )
    if chosen.name == REFERENCE or not alike:
        return None
    x = _trial(weight.shape[0], weight)
    wanted = _answer(module, x)
    if wanted is None or not torch.equal(ops.named("layer_norm", REFERENCE).call(x, weight, bias, eps), wanted):
        return None
    weight, *rest = (nn.Parameter(vector, requires_grad=False) for vector in vectors)
    made = FusedLayerNorm(weight, rest[0] if rest else None, eps)
    made.op = chosen.call
    return made


def fused_unit(module: nn.Module, ops: OpTable, spec: Spec) -> FusedUnit | None:
    """A fused gated unit that answers exactly as the module, whose gate and up are merged, does."""
    gate, up, down = (getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj"))
    if not (isinstance(gate, MergedLinear) and isinstance(up, MergedLinear) and isinstance(down, nn.Module)):
        return None
    x = _trial(gate.in_features, torch.empty(0, dtype=gate.dtype, device=device_of(gate)))
    wanted = _answer(module, x)
    for name in UNITS if wanted is not None else ():
        made = FusedUnit(module)
        made.op = ops.named(name, REFERENCE).call
        if wanted is not None and torch.equal(made(x), wanted):
            made.op = _chosen(ops, name, spec).call
            return made
    return None


def _chosen(ops: OpTable, op: str, spec: Spec) -> Implementation:
    return ops.choose(op, spec).implementation


def _trial(width: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, TRIAL_ROWS, width, generator=generator) * TRIAL_SCALE
    return x.to(device=like.device, dtype=like.dtype)


def _answer(module: nn.Module, x: Tensor) -> Tensor | None:
    """What a module makes of one tensor; None when it is not made for that."""
    try:
        with torch.inference_mode():
            answer = module(x)
    except (TypeError, RuntimeError, AttributeError, ValueError, IndexError, LlmosError):
        return None
    alike = isinstance(answer, Tensor) and (answer.shape, answer.dtype) == (x.shape, x.dtype)
    return answer if alike else None

"""Experts of a model through the op `experts`, by the library's own interface for them.

Nothing of the model is replaced: its experts ask the library's table of functions, which gets one more. What is between
their two products is proposed from what is seen of a module, and kept when it answers as the module's own code does,
and so does the whole. Where one of a model's experts differs, and where none but the reference serves the op, all stay
as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import reference
from ..ops.reference_experts import ACTIVATIONS, Gate
from ..ops.table import OpTable, Spec

NAME = "llmos"
"""What the library calls it."""

EAGER = "eager"
ATTRIBUTE = "_llmos_experts"
TRIAL_TOKENS = 5
TRIAL_CHOSEN = 4
TRIAL_SCALE = 8.0
"""Some numbers are beyond the limits that models clamp at."""
GATE_TOLERANCE = 1e-5
TOLERANCE = {torch.float32: 1e-4}
HALF_TOLERANCE = 3e-2
"""Largest difference as a share of the largest value."""


@dataclass(frozen=True)
class Fitted:
    """How one module of experts is served: its stacks are read at each call, as they may move."""

    call: Callable[..., Tensor]
    gate: Gate
    transposed: bool

    def __call__(self, module: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        gate_up, down = module.gate_up_proj, module.down_proj
        if self.transposed:
            gate_up, down = gate_up.transpose(1, 2), down.transpose(1, 2)
        biases = getattr(module, "gate_up_proj_bias", None), getattr(module, "down_proj_bias", None)
        return self.call(x, gate_up, down, chosen, weights, self.gate, *biases)


def serve(module: nn.Module, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """What the library calls for a module: hidden_states [T, H], the last two [T, K]; [T, H]."""
    fitted: Fitted = module.__dict__[ATTRIBUTE]
    return fitted(module, hidden_states, top_k_index, top_k_weights)


def fit_experts(model: nn.Module, ops: OpTable) -> int:
    """Have the op serve all experts of a model that ask the library's table; returns how many modules of them."""
    found: list[Any] = [module for module in model.modules() if _asks(module)]
    if not found:
        return 0
    first = next(iter(model.parameters()))
    spec: Spec = {"device": first.device.type, "dtype": str(first.dtype).removeprefix("torch.")}
    chosen = ops.choose("experts", spec).implementation
    if chosen.name == reference.NAME or not _registered():
        return 0
    fitted = [fit(module, chosen.call) for module in found]
    if any(each is None for each in fitted):
        return 0
    for module, each in zip(found, fitted, strict=True):
        module.__dict__[ATTRIBUTE] = each
        module.config._experts_implementation = NAME
    return len(found)


def fit(module: Any, call: Callable[..., Tensor]) -> Fitted | None:
    """How `call` answers as a module of experts does; None when it does not."""
    transposed, gate = _transposed(module), _gate_of(module)
    if transposed is None or gate is None:
        return None
    made = Fitted(call, gate, transposed)
    with torch.inference_mode(), _set_to(module.config, EAGER):
        trial = _trial(module, transposed)
        try:
            wanted, got = module(*trial), made(module, *trial)
        except (TypeError, RuntimeError, ValueError, AttributeError, IndexError, NotImplementedError):
            return None
    return made if _near(got, wanted, TOLERANCE.get(got.dtype, HALF_TOLERANCE)) else None


def _asks(module: nn.Module) -> bool:
    """Whether a module's class was made to ask the library's table."""
    return hasattr(module, "_apply_gate") and hasattr(getattr(module, "config", None), "_experts_implementation")


def _registered() -> bool:
    """Put the function in the library's table; False where it has none."""
    try:
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    except ImportError:
        return False
    ALL_EXPERTS_FUNCTIONS.register(NAME, serve)
    return True


def _transposed(module: Any) -> bool | None:
    """Whether stacks are [E, ins, outs]; None where they are not those of gated units."""
    gate_up, down = getattr(module, "gate_up_proj", None), getattr(module, "down_proj", None)
    if not (isinstance(gate_up, Tensor) and isinstance(down, Tensor) and gate_up.ndim == down.ndim == 3):
        return None
    for transposed in (False, True):
        (outs, ins), (width, inner) = (each.shape[:0:-1] if transposed else each.shape[1:] for each in (gate_up, down))
        if (outs, ins) == (2 * inner, width):
            return transposed
    return None


def _gate_of(module: Any) -> Gate | None:
    """The gate that answers as the module's own, in float32."""
    generator = torch.Generator().manual_seed(0)
    both = (torch.randn(TRIAL_TOKENS, 64, generator=generator) * TRIAL_SCALE).to(module.down_proj.device)
    try:
        wanted = module._apply_gate(both)
    except (TypeError, RuntimeError, ValueError, AttributeError, IndexError):
        return None
    named = {name: value for name, value in vars(module).items() if isinstance(value, float | int)}
    limits, alphas = ({value for name, value in named.items() if what in name} for what in ("limit", "alpha"))
    acts = [(act, 1.0) for act in ACTIVATIONS] + [("silu", float(alpha)) for alpha in sorted(alphas)]
    for (act, alpha), interleaved, limit, shift in product(acts, (False, True), sorted({0.0, *limits}), (0.0, 1.0)):
        gate = Gate(act, interleaved, alpha, float(limit), shift)
        if _near(gate(both), wanted, GATE_TOLERANCE):
            return gate
    return None


def _trial(module: Any, transposed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, some of the experts for each, and their weights."""
    stack: Tensor = module.down_proj
    count, width = stack.shape[0], stack.shape[2 if transposed else 1]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TRIAL_TOKENS, width, generator=generator)
    chosen = torch.rand(TRIAL_TOKENS, count, generator=generator).argsort(1)[:, : min(TRIAL_CHOSEN, count)]
    weights = torch.rand(chosen.shape, generator=generator).softmax(1)
    return x.to(stack), chosen.to(stack.device), weights.to(stack)


@contextmanager
def _set_to(config: Any, name: str) -> Iterator[None]:
    before = config._experts_implementation
    config._experts_implementation = name
    try:
        yield
    finally:
        config._experts_implementation = before


def _near(one: Tensor, other: Any, tolerance: float) -> bool:
    if not isinstance(other, Tensor) or one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = one.float(), other.float()
    return bool((one - other).abs().max() <= tolerance * other.abs().max())

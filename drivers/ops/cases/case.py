"""One comparison of an implementation of an op with its reference, and the verdict.

A case makes the same numbers on any device: they are drawn on the processor in float32 and rounded to the dtype. The
oracle is the reference on the processor, given these rounded numbers in float32, so that it rounds nowhere itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from ..table import Spec

HALVES = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12, torch.float64: 2.0**-53}
"""Half a unit in the last place of a number near 1: what one rounding to nearest may be off."""

ROUNDINGS = 12.0
"""How many of these an implementation may be off: several roundings on the way, each cut off at worst."""

SUMMED = 128.0
"""The same for float32, where what is off comes from the order of long sums."""


CANCELLED = 1 / 16
"""The part of the arguments' size below which an answer counts as something that cancelled out."""


@dataclass(frozen=True)
class Call:
    """Arguments of an op. Those at the places `written` are written by the op, and are compared beside its answer."""

    args: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    written: tuple[int, ...] = ()


Tensors = Callable[[torch.device, torch.dtype], Call]
"""Makes the arguments on a device; floating ones that the case is about have the dtype."""


@dataclass(frozen=True)
class Verdict:
    """How far an implementation was off at worst and how far it may be; `what` says where, for people."""

    ok: bool
    worst: float
    allowed: float
    what: str


Judge = Callable[[Any, Any, torch.dtype, Call], Verdict]
"""Compares what was expected with what came; each is the answer and the written arguments, as one flat tuple."""

Run = Callable[[Callable[..., Any], Call], Any]
"""Gets the answer of an implementation for a call."""


def plainly(implementation: Callable[..., Any], call: Call) -> Any:
    """What most ops do: the arguments in, the answer out."""
    return implementation(*call.args, **call.options)


def near(expected: Any, got: Any, dtype: torch.dtype, call: Call) -> Verdict:
    """Floating numbers may be off by a few roundings, relative to themselves, to the size of their row, or to a part
    of what they were made from: the small difference of large numbers is no more exact than those. Others are equal.

    What is infinite or no number in one must be so in the other.
    """
    allowed = HALVES[dtype] * (SUMMED if dtype == torch.float32 else ROUNDINGS)
    worst, what, least = 0.0, "equal", CANCELLED * largest(call)
    for place, (wanted, found) in enumerate(zip_longest(expected, got)):
        off, where = distance(wanted, found, least)
        if off > worst:
            worst, what = off, f"value {place}: {where}"
    return Verdict(worst <= allowed, worst, allowed, what)


def largest(call: Call) -> float:
    """The greatest root mean square among the floating arguments, of what is finite in them."""
    floating = [value for value in call.args if isinstance(value, Tensor) and value.is_floating_point()]
    return max((float(rms(value.float().flatten())) for value in floating if value.numel()), default=0.0)


def rms(values: Tensor) -> Tensor:
    """Of the last dimension [..., N], as [..., 1]; what is not finite counts as 0."""
    return values.where(values.isfinite(), 0.0).pow(2).mean(-1, keepdim=True).sqrt()


def distance(wanted: Tensor | None, found: Tensor | None, least: float | Tensor) -> tuple[float, str]:
    """The greatest relative difference and where it is; infinite for tensors that cannot be compared. Numbers below
    `least`, or below its number at their place, count as that large."""
    if wanted is None or found is None:
        return (0.0, "") if wanted is found else (torch.inf, f"expected {wanted}, found {found}")
    found = found.detach().cpu()
    if found.shape != wanted.shape:
        return torch.inf, f"shape {tuple(found.shape)}, expected {tuple(wanted.shape)}"
    if not wanted.numel():
        return 0.0, ""
    wide, seen = wanted.double(), found.double()
    off = (seen - wide).abs()
    if wanted.is_floating_point():
        finite = wide.where(wide.isfinite(), 0.0).abs()
        size = torch.maximum(finite, rms(wide) if wide.ndim else finite)
        off = off / torch.maximum(size, torch.as_tensor(least, dtype=torch.float64).clamp(min=1e-30))
    same = (wide == seen) | (wide.isnan() & seen.isnan())
    off = torch.where(same, 0.0, off.nan_to_num(nan=torch.inf))
    place = int(off.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), wanted.shape))
    return float(off.flatten()[place]), f"{seen[index]:g} at {index}, expected {wide[index]:g}"


@dataclass(frozen=True)
class Case:
    """A call of an op with what its provider is asked (`spec`, without device and dtype) and how it is judged."""

    op: str
    name: str
    spec: Spec
    make: Tensors
    dtypes: Sequence[str] = ("float32", "bfloat16", "float16")
    judge: Judge = near
    run: Run = plainly

    def asked(self, device: torch.device, dtype: str) -> dict[str, Any]:
        """The whole spec, as `OpTable.choose` takes it."""
        return {**self.spec, "device": device.type, "dtype": dtype}


class Draws:
    """Tensors that are the same on every device: drawn on the processor in float32, rounded, then moved."""

    def __init__(self, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self.device, self.dtype = device, dtype

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        return self.put(torch.randn(shape, generator=self._generator) * scale, dtype or self.dtype)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        return self.put(torch.rand(shape, generator=self._generator) * (high - low) + low, dtype or self.dtype)

    def integers(self, *shape: int, low: int, high: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """From `low` up to but not with `high`."""
        return self.put(torch.randint(low, high, shape, generator=self._generator), dtype)

    def permutation(self, size: int) -> list[int]:
        return [int(i) for i in torch.randperm(size, generator=self._generator)]

    def tensor(self, values: Any, dtype: torch.dtype) -> Tensor:
        return self.put(torch.tensor(values, dtype=dtype), dtype)

    def put(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor.to(dtype).to(self.device)


def dtype_of(name: str) -> torch.dtype:
    """`torch.bfloat16` for "bfloat16"."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def expected(case: Case, reference: Callable[..., Any], dtype: str) -> tuple[Any, ...]:
    """What the reference answers and writes for the rounded numbers of a case, in float32 on the processor."""
    kind = dtype_of(dtype)
    made = case.make(torch.device("cpu"), kind)

    def wide(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.float() if value.dtype == kind else value
        return type(value)(map(wide, value)) if type(value) in (list, tuple) else value

    options = {name: wide(value) for name, value in made.options.items()}
    return outcome(case, reference, Call(tuple(map(wide, made.args)), options, made.written))


def outcome(case: Case, implementation: Callable[..., Any], call: Call) -> tuple[Any, ...]:
    """The answer of an implementation and what it wrote, as one flat tuple."""
    with torch.no_grad():
        answer = case.run(implementation, call)
    answers = answer if isinstance(answer, tuple) else (answer,)
    return *answers, *(call.args[place] for place in call.written)


def check(
    case: Case, implementation: Callable[..., Any], reference: Callable[..., Any], device: torch.device, dtype: str
) -> Verdict:
    """An implementation on a device against the reference."""
    call = case.make(device, dtype_of(dtype))
    return case.judge(expected(case, reference, dtype), outcome(case, implementation, call), dtype_of(dtype), call)

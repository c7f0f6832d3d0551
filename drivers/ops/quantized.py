"""Weights of 4 or 8 bits with a scale for each group of inputs, and what they mean.

A scheme says how many bits a number has, how many neighbouring inputs of an output share a scale, and whether numbers
are whole (`int`) or floating (`float`, e4m3 of 8 bits). With u the stored number and c = 2 ** (width - 1),

    w = (u - c) * scale          whole numbers without a shift: they count from the middle
    w = u * scale + shift        whole numbers with one
    w = u * scale                floating numbers

all in float32. Numbers of 4 bits lie two to a byte, in halves of blocks of 128 inputs: byte j of a block holds input j
in its low and input 64 + j in its high bits, so that a block becomes two dense halves without any shuffling (the half
split of gemlite and Machete, gemlite: github.com/mobiusml/gemlite).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from llmos.syscalls.errors import BadArgument

BLOCK = 128
"""Inputs whose 4-bit numbers share 64 bytes; rows are filled up to a multiple of it with zeros."""
GROUPS = (0, 32, 64, 128)
FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0
SCALES = (torch.float16, torch.float32)


@dataclass(frozen=True)
class Scheme:
    """How weights are kept. `group`: neighbouring inputs with one scale, 0 for all inputs of an output."""

    width: int
    group: int = 128
    kind: str = "int"
    shift: bool = False

    def __post_init__(self) -> None:
        right = type(self.width) is int and type(self.group) is int and type(self.shift) is bool
        right = right and self.width in (4, 8) and self.group in GROUPS
        if self.kind not in ("int", "float") or not right or (self.kind == "float" and (self.width != 8 or self.shift)):
            raise BadArgument(
                f"there is no scheme {self}; width is 4 or 8, group one of {GROUPS}, float has 8 bits and no shift",
                name="scheme", got=str(self), want="int of 4 or 8 bits, or float of 8",
            )  # fmt: skip

    @property
    def middle(self) -> int:
        """What a stored number of 0 stands for, negated, where there is no shift."""
        return 0 if self.shift or self.kind == "float" else 1 << (self.width - 1)

    @property
    def top(self) -> int:
        """The greatest stored number."""
        return (1 << self.width) - 1

    def groups(self, ins: int) -> int:
        """Scales of one output."""
        return -(-ins // self.group) if self.group else 1

    def numbers_of(self, outs: int, ins: int) -> tuple[tuple[int, int], torch.dtype]:
        """Shape and dtype of the stored numbers."""
        if self.width == 4:
            return (outs, -(-ins // BLOCK) * BLOCK // 2), torch.uint8
        return (outs, ins), FLOAT8 if self.kind == "float" else torch.uint8

    def bits_per_weight(self, ins: int, scale_bits: int = 16) -> float:
        """What is read for one weight of a row of `ins` inputs, scales and shifts counted."""
        (_, row), _ = self.numbers_of(1, ins)
        return (8 * row + self.groups(ins) * scale_bits * (1 + self.shift)) / ins


@dataclass(frozen=True)
class QuantizedWeight:
    """The weights [N, K] of one linear layer.

    `numbers` [N, K] uint8 or float8_e4m3fn, or [N, K filled up / 2] uint8 of 4 bits; `scale` and `shift` [N, groups]
    float16 or float32, `shift` None where the scheme has none; `ins` is K.
    """

    scheme: Scheme
    numbers: Tensor
    scale: Tensor
    shift: Tensor | None
    ins: int

    @property
    def outs(self) -> int:
        return self.numbers.shape[0]

    @property
    def nbytes(self) -> int:
        return self.numbers.nbytes + self.scale.nbytes + (0 if self.shift is None else self.shift.nbytes)

    def check(self, name: str) -> None:
        """Raises BadArgument where shapes or dtypes do not fit the scheme; `name` is the layer's."""
        shape, dtype = self.scheme.numbers_of(self.outs, self.ins)
        scales = (self.outs, self.scheme.groups(self.ins))
        right = tuple(self.numbers.shape) == shape and self.numbers.dtype == dtype
        right = right and (self.shift is None) != self.scheme.shift
        parts = [part for part in (self.scale, self.shift) if part is not None]
        if not right or any(tuple(part.shape) != scales or part.dtype not in SCALES for part in parts):
            got = f"{self.numbers.dtype} {tuple(self.numbers.shape)}, scales {[tuple(part.shape) for part in parts]}"
            want = f"{dtype} {shape}, scales {scales}"
            said = f"the numbers of {name} are {got}; {self.scheme} of {self.ins} inputs needs {want}"
            raise BadArgument(said, name=name, got=got, want=want)

    def rows(self, ids: Tensor | slice) -> QuantizedWeight:
        """Some of the outputs."""
        shift = None if self.shift is None else self.shift[ids]
        return replace(self, numbers=self.numbers[ids], scale=self.scale[ids], shift=shift)

    def to(self, device: torch.device) -> QuantizedWeight:
        shift = None if self.shift is None else self.shift.to(device)
        return replace(self, numbers=self.numbers.to(device), scale=self.scale.to(device), shift=shift)

    def whole(self) -> Tensor:
        """The stored numbers, one each, [N, K] float32."""
        if self.scheme.width == 4:
            return unpack_nibbles(self.numbers)[:, : self.ins].float()
        return self.numbers.float()

    def dequantized(self) -> Tensor:
        """The weights [N, K] in float32."""
        scale = _spread(self.scale, self.scheme, self.ins)
        if self.shift is not None:
            return self.whole() * scale + _spread(self.shift, self.scheme, self.ins)
        return (self.whole() - self.scheme.middle) * scale


def pack_nibbles(numbers: Tensor) -> Tensor:
    """Numbers 0 to 15 [N, K] uint8 to [N, K filled up to blocks / 2] bytes, in halves of blocks."""
    blocks = F.pad(numbers, (0, -numbers.shape[1] % BLOCK)).view(numbers.shape[0], -1, 2, BLOCK // 2)
    return (blocks[:, :, 0] | blocks[:, :, 1] << 4).flatten(1)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The reverse, [N, K filled up] uint8."""
    blocks = packed.view(packed.shape[0], -1, BLOCK // 2)
    return torch.stack((blocks & 15, blocks >> 4), dim=2).flatten(1)


def _spread(scales: Tensor, scheme: Scheme, ins: int) -> Tensor:
    """Scales [N, groups] to one for each input, float32."""
    return scales.float() if not scheme.group else scales.float().repeat_interleave(scheme.group, dim=1)[:, :ins]


def grouped(values: Tensor, group: int) -> Tensor:
    """[..., K] as [..., groups, group], filled up with zeros; one group of all for 0."""
    size = group or values.shape[-1]
    padded = F.pad(values, (0, -values.shape[-1] % size))
    return padded.reshape(*values.shape[:-1], -1, size)


def to_numbers(weight: Tensor, scheme: Scheme, scale: Tensor, shift: Tensor | None = None) -> QuantizedWeight:
    """Weights [N, K] rounded to the nearest stored number for given scales (and shifts) [N, groups]; ties to even.

    Scales are used as they will be stored. A scale of 0 makes its group 0 (or its shift).
    """
    ins = weight.shape[1]
    spread = _spread(scale, scheme, ins)
    wide = weight.float() if shift is None else weight.float() - _spread(shift, scheme, ins)
    inverse = torch.where(spread == 0, 0.0, 1.0 / spread)
    if scheme.kind == "float":
        numbers = (wide * inverse).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8)
    else:
        numbers = ((wide * inverse).round() + scheme.middle).clamp(0, scheme.top).to(torch.uint8)
        numbers = pack_nibbles(numbers) if scheme.width == 4 else numbers
    return QuantizedWeight(scheme, numbers, scale, shift, ins)


def largest_scale(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor | None]:
    """Scales (and shifts) [N, groups] float32 by which no weight is cut off."""
    parts = grouped(weight.float(), scheme.group)
    if scheme.shift:
        low, high = parts.amin(-1).clamp(max=0.0), parts.amax(-1).clamp(min=0.0)
        return (high - low) / scheme.top, low
    most = FLOAT8_MAX if scheme.kind == "float" else scheme.middle - 1
    return parts.abs().amax(-1) / most, None


def stored_scale(scale: Tensor) -> Tensor:
    """As float16 where all fit its normal numbers, else as float32."""
    size = scale.abs()
    info = torch.finfo(torch.float16)
    fits = bool(((size == 0) | ((size >= info.smallest_normal) & (size <= info.max))).all())
    return scale.to(torch.float16) if fits else scale.float()


def round_to_nearest(weight: Tensor, scheme: Scheme) -> QuantizedWeight:
    """Weights [N, K] by the scales that cut nothing off: the plainest way."""
    scale, shift = largest_scale(weight, scheme)
    return to_numbers(weight, scheme, stored_scale(scale), None if shift is None else stored_scale(shift))


def concatenated(weights: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """Outputs below one another. Raises BadArgument when schemes or inputs differ."""
    first = weights[0]
    if any(each.scheme != first.scheme or each.ins != first.ins for each in weights):
        kinds = [(each.scheme, each.ins) for each in weights]
        said = f"weights of {kinds} cannot be merged; they need one scheme and the same inputs"
        raise BadArgument(said, name="weights", got=str(kinds))
    if len(weights) == 1:
        return first
    scale = max((each.scale.dtype for each in weights), key=lambda dtype: dtype.itemsize)
    shifts = [each.shift for each in weights if each.shift is not None]
    wide = max((shift.dtype for shift in shifts), key=lambda dtype: dtype.itemsize, default=scale)
    return QuantizedWeight(
        first.scheme, torch.cat([each.numbers for each in weights]),
        torch.cat([each.scale.to(scale) for each in weights]),
        torch.cat([shift.to(wide) for shift in shifts]) if shifts else None, first.ins,
    )  # fmt: skip

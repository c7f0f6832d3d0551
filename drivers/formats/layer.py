"""One quantized layer of a foreign checkpoint, and how its numbers become ours.

What those checkpoints keep are whole numbers q of few bits with a scale and a zero for each group of inputs,

    w = (q - zero) * scale

or floating ones without a zero. It is the same to the last bit in one of our schemes where the groups are ones of ours
(or can be cut into them), since all products of numbers of so few bits are exact in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..ops.quantized import QuantizedWeight, Scheme, pack_nibbles

GROUPS = (128, 64, 32)
"""The greatest first: a greater group is cut into those."""


class Files(Protocol):
    """Tensors by name, read when they are asked for."""

    def __contains__(self, name: object) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str) -> Tensor: ...


@dataclass(frozen=True)
class Layer:
    """A linear layer: the tensors it consists of, the scheme in which its weights are exact or None, and the reason
    then; `read` gives the weights [outs, ins], quantized where there is a scheme, else in float32. `scale` is the dtype
    of its scales."""

    name: str
    parts: tuple[str, ...]
    outs: int
    ins: int
    scheme: Scheme | None
    why: str
    scale: torch.dtype
    read: Callable[[], QuantizedWeight | Tensor]

    def wide(self) -> Tensor:
        """The weights in float32."""
        weight = self.read()
        return weight if isinstance(weight, Tensor) else weight.dequantized()


def group_of(size: int, ins: int) -> int | None:
    """The group of ours that groups of `size` inputs (0 or less: all) are cut into; None where there is none."""
    if size <= 0 or size >= ins:
        return 0
    return next((group for group in GROUPS if size % group == 0), None)


def scheme_of(bits: int, group: int | None, zeros: Tensor | int) -> Scheme | None:
    """The scheme in which whole numbers of `bits` with these zeros are exact: one of 4 or 8 bits, without a shift where
    all zeros are the same and the numbers around it fit."""
    if group is None or not 1 <= bits <= 8:
        return None
    width = 4 if bits <= 4 else 8
    zero = zeros if isinstance(zeros, int) else same(zeros)
    middle, top = 1 << (width - 1), (1 << width) - 1
    plain = zero is not None and zero <= middle and (1 << bits) - 1 - zero + middle <= top
    return Scheme(width, group, shift=not plain)


def same(values: Tensor) -> int | None:
    """What all values are, None where they differ."""
    low, high = (int(each) for each in torch.aminmax(values))
    return low if low == high else None


def scale_dtype(dtype: torch.dtype) -> torch.dtype:
    """What scales of a dtype are kept as, without rounding."""
    return torch.float16 if dtype == torch.float16 else torch.float32


def kept(codes: Tensor, scale: Tensor, zeros: Tensor | int, size: int, scheme: Scheme) -> QuantizedWeight:
    """Whole numbers in a scheme of `scheme_of`.

    Args:
        codes: numbers q [outs, ins], uint8.
        scale: [outs, groups] of `size` inputs.
        zeros: [outs, groups], or one for all.
    """
    ins = codes.shape[1]
    scale = scale.to(scale_dtype(scale.dtype))
    shift = None
    if scheme.shift:
        shift = cut(-(torch.as_tensor(zeros).float() * scale.float()), size, scheme, ins)
        numbers = codes
    else:
        zero = zeros if isinstance(zeros, int) else same(zeros)
        assert zero is not None
        numbers = codes + (scheme.middle - zero)
    packed = pack_nibbles(numbers) if scheme.width == 4 else numbers
    return QuantizedWeight(scheme, packed, cut(scale, size, scheme, ins), shift, ins)


def cut(scales: Tensor, size: int, scheme: Scheme, ins: int) -> Tensor:
    """Scales [outs, groups of `size`] repeated for the groups of a scheme; one for all where there is one."""
    repeats = size // scheme.group if scheme.group and size > 0 else 1
    groups = scheme.groups(ins)
    if scales.shape[1] == 1:
        return scales.expand(-1, groups).contiguous()
    return scales.repeat_interleave(repeats, dim=1)[:, :groups].contiguous()


def wide(codes: Tensor, scale: Tensor, zeros: Tensor | int, index: Tensor) -> Tensor:
    """The weights [outs, ins] in float32, for any groups: input k belongs to group `index`[k]."""
    number = codes.float()
    if isinstance(zeros, int):
        return (number - zeros) * scale.float()[:, index]
    return (number - zeros.float()[:, index]) * scale.float()[:, index]


def unpacked(words: Tensor, bits: int, count: int) -> Tensor:
    """Numbers of `bits` that follow one another in rows of 32-bit words, the lowest bits first.

    Args:
        words: [rows, words] int32.
        count: numbers of a row.

    Returns:
        [rows, count] uint8.
    """
    rows = words.shape[0]
    period = bits if 32 % bits else 1
    parts = torch.nn.functional.pad(words, (0, -words.shape[1] % period)).view(rows, -1, period)
    numbers = []
    for place in range(0, 32 * period, bits):
        at, low = divmod(place, 32)
        here = parts[:, :, at] >> low & (1 << min(bits, 32 - low)) - 1
        if low + bits > 32:
            here = here | (parts[:, :, at + 1] & (1 << (low + bits - 32)) - 1) << (32 - low)
        numbers.append(here.to(torch.uint8))
    return torch.stack(numbers, dim=2).view(rows, -1)[:, :count]

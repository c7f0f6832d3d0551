"""Checkpoints of compressed-tensors (github.com/vllm-project/compressed-tensors), which llm-compressor writes.

`pack-quantized`: whole numbers of 1 to 8 bits, `weight_packed` [N, K * bits / 32] int32 counted from their middle, with
`weight_scale`, `weight_shape`, and where asymmetric `weight_zero_point`, packed along the outputs. `int-quantized`,
`float-quantized` and `naive-quantized`: `weight` in int8 or float8 e4m3, with `weight_scale`, and `weight_zero_point`
in int8. Scales are one for all, for each output, for each group of inputs, or for each block of outputs and inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadModel, NotSupported

from ..ops.quantized import FLOAT8, QuantizedWeight, Scheme
from .layer import GROUPS, Files, Layer, cut, group_of, kept, scale_dtype, scheme_of, unpacked, wide

PACKED = "pack-quantized"
PLAIN = ("int-quantized", "float-quantized", "naive-quantized")
MIXED = "mixed-precision"
PARTS = (
    "weight_packed", "weight", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "input_scale",
    "input_zero_point", "weight_global_scale", "input_global_scale",
)  # fmt: skip
CACHE = (".k_scale", ".v_scale", ".q_scale")
"""Scales of keys and values, for caches of 8 bits."""


def layers(settings: Mapping[str, Any], files: Files) -> Iterator[Layer]:
    """The quantized layers. Raises NotSupported for formats of other numbers, and for sparse ones."""
    formats = {str(settings.get("format"))}
    if formats == {MIXED}:
        groups = settings.get("config_groups") or {}
        formats = {str(group.get("format")) for group in groups.values()}
    for name in sorted(formats - {PACKED, *PLAIN}):
        why = f"compressed-tensors in the format {name!r}; read are {', '.join((PACKED, *PLAIN))}"
        raise NotSupported(why, why=why)
    told = _told_bits(settings)
    for name in [each.removesuffix(".weight_scale") for each in files if each.endswith(".weight_scale")]:
        yield _packed(files, name, told) if f"{name}.weight_packed" in files else _plain(files, name)


def left_out(name: str) -> bool:
    """Whether a tensor beside the layers serves nothing here."""
    return name.endswith(CACHE)


def _told_bits(settings: Mapping[str, Any]) -> set[int]:
    """The widths of weights that the groups of layers have."""
    groups = (settings.get("config_groups") or {}).values()
    weights = (group.get("weights") or {} for group in groups if isinstance(group, Mapping))
    return {bits for each in weights if isinstance(bits := each.get("num_bits"), int)}


def _packed(files: Files, name: str, told: Collection[int]) -> Layer:
    outs, ins = (int(size) for size in files.read(f"{name}.weight_shape"))
    rows, words = files.shape(f"{name}.weight_packed")
    if rows != outs or min(outs, ins) < 1:
        why = f"{name}.weight_shape is {outs} x {ins}, weight_packed has {rows} rows"
        raise BadModel(why, file=name, why=why)
    bits = _bits(name, ins, words, told)
    scale = _scales(files, name, outs)
    zeros: Tensor | int = 1 << (bits - 1)
    if f"{name}.weight_zero_point" in files:
        zeros = unpacked(files.read(f"{name}.weight_zero_point").T.contiguous(), bits, outs).T.contiguous()
    codes = partial(_unpacked, files, name, bits, ins)
    return _whole(files, name, (outs, ins), bits, size_of(scale.shape[1], ins), zeros, codes)


def _bits(name: str, ins: int, words: int, told: Collection[int]) -> int:
    """Of a number, by the words of a row; where several widths make as many, the only one `told`. Raises NotSupported.
    """
    able = [bits for bits in range(1, 9) if -(-ins * bits // 32) == words]
    known = [bits for bits in able if bits in told] if len(able) > 1 else able
    if len(known) == 1:
        return known[0]
    makes = f"{', '.join(map(str, able))} bits make; config_groups say not which" if able else "no number of bits makes"
    why = f"{name}.weight_packed has {words} words for {ins} inputs, which {makes}"
    raise NotSupported(why, why=why)


def _plain(files: Files, name: str) -> Layer:
    outs, ins = files.shape(f"{name}.weight")
    weight, scale = files.read(f"{name}.weight"), _scales(files, name, outs)
    size = size_of(scale.shape[1], ins)
    if weight.dtype == torch.int8:
        zeros: Tensor | int = 128
        if f"{name}.weight_zero_point" in files:
            zeros = by_output(files.read(f"{name}.weight_zero_point").short() + 128, outs)
        return _whole(files, name, (outs, ins), 8, size, zeros, partial(_from_middle, files, name))
    if weight.dtype != FLOAT8:
        why = f"{name}.weight is of {weight.dtype}; read are int8 and float8_e4m3fn"
        raise NotSupported(why, why=why)
    group = group_of(size, ins)
    scheme = None if group is None else Scheme(8, group, "float")

    def read() -> QuantizedWeight | Tensor:
        numbers, scales = files.read(f"{name}.weight"), _scales(files, name, outs)
        if scheme is None:
            return numbers.float() * scales.float()[:, torch.arange(ins) // size]
        scales = scales.to(scale_dtype(scales.dtype))
        return QuantizedWeight(scheme, numbers, cut(scales, size, scheme, ins), None, ins)

    why = "" if scheme else f"groups of {size} inputs"
    return Layer(name, _parts(files, name), outs, ins, scheme, why, scale_dtype(scale.dtype), read)


def _whole(
    files: Files, name: str, shape: tuple[int, int], bits: int, size: int, zeros: Tensor | int,
    codes: Callable[[], Tensor],
) -> Layer:  # fmt: skip
    """A layer of whole numbers."""
    outs, ins = shape
    index = torch.arange(ins) // size
    if f"{name}.weight_g_idx" in files:
        found = files.read(f"{name}.weight_g_idx").long()
        index = index if bool((found < 0).all()) else found
    ordered = torch.equal(index, torch.arange(ins) // size)
    scheme = scheme_of(bits, group_of(size, ins) if ordered else None, zeros)
    why = "" if scheme else f"groups of {size} inputs" if ordered else "the inputs of a group are not neighbours"

    def read() -> QuantizedWeight | Tensor:
        scale = _scales(files, name, outs)
        return wide(codes(), scale, zeros, index) if scheme is None else kept(codes(), scale, zeros, size, scheme)

    scale = scale_dtype(_scales(files, name, outs).dtype)
    return Layer(name, _parts(files, name), outs, ins, scheme, why, scale, read)


def _unpacked(files: Files, name: str, bits: int, ins: int) -> Tensor:
    return unpacked(files.read(f"{name}.weight_packed"), bits, ins)


def _from_middle(files: Files, name: str) -> Tensor:
    """Numbers -128 to 127 counted from the middle, uint8."""
    return (files.read(f"{name}.weight").short() + 128).to(torch.uint8)


def _scales(files: Files, name: str, outs: int) -> Tensor:
    return by_output(files.read(f"{name}.weight_scale"), outs)


def _parts(files: Files, name: str) -> tuple[str, ...]:
    return tuple(f"{name}.{part}" for part in PARTS if f"{name}.{part}" in files)


def by_output(values: Tensor, outs: int) -> Tensor:
    """Values for all, for blocks of outputs, or for each [outs, groups]: as those for each."""
    values = values.reshape(-1, values.shape[-1] if values.dim() > 1 else 1)
    return values.repeat_interleave(size_of(values.shape[0], outs), dim=0)[:outs]


def size_of(count: int, total: int) -> int:
    """How many of `total` share one of `count` values. The last of them may be fewer."""
    if total % count == 0:
        return total // count
    return next((size for size in GROUPS if -(-total // size) == count), -(-total // count))

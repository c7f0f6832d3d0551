"""Weights as blocks of GGUF: ours without loss where a kind of block holds the same, else rounded by its rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ops.quantized import QuantizedWeight, unpack_nibbles

BLOCK = 32
HALF = torch.finfo(torch.float16).max


def exact(weight: QuantizedWeight) -> str:
    """The kind of blocks that holds these weights to the last bit; empty where there is none.

    All groups of ours are cut into those of 32, whose scales are float16.
    """
    scheme = weight.scheme
    scales = [part for part in (weight.scale, weight.shift) if part is not None]
    if weight.ins % BLOCK or scheme.kind == "float" or not all(_fits(part) for part in scales):
        return ""
    if scheme.shift:
        return "Q4_1" if scheme.width == 4 else ""
    return "Q4_0" if scheme.width == 4 else "Q8_0"


def encoded(weight: QuantizedWeight, kind: str) -> np.ndarray[Any, Any]:
    """Weights as blocks of their `exact` kind, [outs, bytes]."""
    outs = weight.outs
    head = [_spread(weight.scale, weight)]
    if weight.shift is not None:
        head.append(_spread(weight.shift, weight))
    if kind == "Q8_0":
        numbers = (weight.numbers ^ 128).view(outs, -1, BLOCK)
    else:
        codes = unpack_nibbles(weight.numbers)[:, : weight.ins].view(outs, -1, 2, BLOCK // 2)
        numbers = codes[:, :, 0] | codes[:, :, 1] << 4
    data: np.ndarray[Any, Any] = torch.cat((*head, numbers), dim=2).flatten(1).numpy()
    return data


def rounded(values: Tensor, kind: str) -> np.ndarray[Any, Any]:
    """Values [outs, ins] as numbers or blocks of a kind, by the rules of the package `gguf`."""
    from gguf import GGMLQuantizationType, quantize

    wide = values.float().numpy()
    if kind in ("F16", "F32"):
        return wide.astype(np.float16 if kind == "F16" else np.float32)
    blocks: np.ndarray[Any, Any] = quantize(wide, GGMLQuantizationType[kind])
    return blocks


def wide_kind(values: Tensor) -> str:
    """What values that are not quantized are written as: F32 for vectors and what float16 cannot hold, else F16."""
    return "F16" if values.dim() > 1 and float(values.abs().max()) <= HALF else "F32"


def size_of(shape: tuple[int, ...], kind: str) -> int:
    """Bytes of a tensor."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    count, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return int(np.prod(shape)) // count * size


def _fits(scales: Tensor) -> bool:
    return scales.dtype == torch.float16 or bool((scales.half().float() == scales).all())


def _spread(scales: Tensor, weight: QuantizedWeight) -> Tensor:
    """Scales of our groups as two bytes for each block, [outs, blocks, 2]."""
    count = weight.ins // BLOCK
    groups = weight.scheme.group // BLOCK if weight.scheme.group else count
    whole = scales.half().repeat_interleave(groups, dim=1)[:, :count]
    return whole.contiguous().view(torch.uint8).view(weight.outs, count, 2)

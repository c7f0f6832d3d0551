"""Checkpoints in the layout of AWQ (Lin et al. 2024), as AutoAWQ writes them for matrix products (`gemm`).

A layer of K inputs and N outputs has `qweight` [K, N / 8] int32 and `qzeros` [groups, N / 8] int32, eight outputs to a
word in the order 0, 2, 4, 6, 1, 3, 5, 7, and `scales` [groups, N].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadModel, NotSupported

from ..ops.quantized import QuantizedWeight
from .layer import Files, Layer, group_of, kept, scale_dtype, scheme_of, unpacked, wide

BITS = 4
LAYOUT = "gemm"
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where each of eight outputs lies in its word."""
ENDINGS = (".qweight", ".qzeros", ".scales")


def layers(settings: Mapping[str, Any], files: Files) -> Iterator[Layer]:
    """The quantized layers. Raises NotSupported for another layout or number of bits."""
    bits = int(settings.get("bits") or settings.get("w_bit") or BITS)
    layout = str(settings.get("version") or LAYOUT).lower()
    if bits != BITS or layout != LAYOUT:
        why = f"AWQ of {bits} bits in the layout {layout!r}; read is {LAYOUT!r} of {BITS} bits"
        raise NotSupported(why, why=why)
    size = int(settings.get("group_size") or settings.get("q_group_size") or 128)
    for name in [each.removesuffix(".qweight") for each in files if each.endswith(".qweight")]:
        yield _layer(files, name, size)


def _layer(files: Files, name: str, size: int) -> Layer:
    ins, words = files.shape(f"{name}.qweight")
    if not words or not ins:
        why = f"{name}.qweight is empty"
        raise BadModel(why, file=name, why=why)
    size = size if size > 0 else ins
    zeros = _outputs(files.read(f"{name}.qzeros")) if f"{name}.qzeros" in files else 1 << (BITS - 1)
    scheme = scheme_of(BITS, group_of(size, ins), zeros)

    def read() -> QuantizedWeight | Tensor:
        codes, scale = _outputs(files.read(f"{name}.qweight")), files.read(f"{name}.scales").T.contiguous()
        if scheme is None:
            return wide(codes, scale, zeros, torch.arange(ins) // size)
        return kept(codes, scale, zeros, size, scheme)

    scale = scale_dtype(files.read(f"{name}.scales").dtype)
    parts = tuple(name + ending for ending in ENDINGS if name + ending in files)
    why = "" if scheme else f"groups of {size} inputs"
    return Layer(name, parts, words * 32 // BITS, ins, scheme, why, scale, read)


def _outputs(words: Tensor) -> Tensor:
    """Words [rows, N / 8] to numbers [N, rows]."""
    numbers = unpacked(words, BITS, words.shape[1] * 8).view(words.shape[0], -1, 8)
    return numbers[:, :, list(PLACES)].flatten(1).T.contiguous()

"""Checkpoints in the layout of GPTQ (Frantar et al. 2023), as AutoGPTQ and GPTQModel write them.

A layer of K inputs and N outputs has `qweight` [K * bits / 32, N] int32, numbers along the inputs; `qzeros`
[groups, N * bits / 32] int32, numbers along the outputs, which are one less than the zeros they stand for (but in the
second version of the layout); `scales` [groups, N]; and mostly `g_idx` [K], the group of each input. Inputs are in
another order than their groups where the numbers were found in the order of activations: those layers are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadModel, NotSupported

from ..ops.quantized import QuantizedWeight
from .layer import Files, Layer, group_of, kept, same, scale_dtype, scheme_of, unpacked, wide

BITS = (2, 3, 4, 8)
FORMATS = ("gptq", "gptq_v2")
ENDINGS = (".qweight", ".qzeros", ".scales", ".g_idx")


def layers(settings: Mapping[str, Any], files: Files) -> Iterator[Layer]:
    """The quantized layers. Raises NotSupported for another layout or number of bits."""
    bits, size = int(settings.get("bits", 4)), int(settings.get("group_size", -1))
    layout = settings.get("checkpoint_format", "gptq")
    if bits not in BITS or layout not in FORMATS:
        why = f"GPTQ of {bits} bits in the layout {layout!r}; read are {', '.join(FORMATS)} of 2, 3, 4 or 8 bits"
        raise NotSupported(why, why=why)
    for name in [each.removesuffix(".qweight") for each in files if each.endswith(".qweight")]:
        yield _layer(files, name, bits, size, layout == "gptq", bool(settings.get("sym")))


def _layer(files: Files, name: str, bits: int, size: int, less: bool, symmetric: bool) -> Layer:
    words, outs = files.shape(f"{name}.qweight")
    if not words or not outs:
        why = f"{name}.qweight is empty"
        raise BadModel(why, file=name, why=why)
    ins = words * 32 // bits
    zeros = _zeros(files, name, bits, outs, less, symmetric)
    size = size if size > 0 else ins
    index = files.read(f"{name}.g_idx").long() if f"{name}.g_idx" in files else torch.arange(ins) // size
    if index.numel() != ins or int(index.min()) < 0:
        why = f"{name}.g_idx has no group for each of {ins} inputs"
        raise BadModel(why, file=name, why=why)
    ordered = torch.equal(index, torch.arange(ins) // size)
    group = group_of(size, ins) if ordered else None
    scheme = scheme_of(bits, group, zeros)
    why = "" if scheme else f"groups of {size} inputs" if ordered else "the inputs of a group are not neighbours"

    def read() -> QuantizedWeight | Tensor:
        codes = unpacked(files.read(f"{name}.qweight").T.contiguous(), bits, ins)
        scale = files.read(f"{name}.scales").T.contiguous()
        return wide(codes, scale, zeros, index) if scheme is None else kept(codes, scale, zeros, size, scheme)

    scale = scale_dtype(files.read(f"{name}.scales").dtype)
    parts = tuple(name + ending for ending in ENDINGS if name + ending in files)
    return Layer(name, parts, outs, ins, scheme, why, scale, read)


def _zeros(files: Files, name: str, bits: int, outs: int, less: bool, symmetric: bool) -> Tensor:
    """The zeros [outs, groups].

    One less wraps: 2 ** bits - 1 stands for 0. Some writers say the first version and mean the second; where all are
    symmetric it is seen.
    """
    stored = unpacked(files.read(f"{name}.qzeros"), bits, outs).T.contiguous()
    if not less or (symmetric and same(stored) == 1 << (bits - 1)):
        return stored
    return stored + 1 & (1 << bits) - 1

"""Weights of GGUF files: their blocks, and where each tensor belongs in the module.

Blocks are those of llama.cpp (github.com/ggml-org/llama.cpp, ggml-common.h): 32 neighbouring inputs with a scale in
float16, or 256 of them in eight parts of 32 whose scales and mins are numbers of 6 bits times two in float16. All of
these are ours to the last bit in groups of 32. Other blocks (Q6_K, whose parts have 16 inputs, and those of fewer bits)
are dequantized by the package `gguf`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ..ops.quantized import QuantizedWeight, Scheme, pack_nibbles
from .layer import kept, scheme_of

GROUP = 32
ROTATED = ("attn_q", "attn_k")
"""Rows of these are in another order in GGUF's Llama, whose rotary pairs are neighbours and not halves apart."""
K_PARTS = 8

Reader = Callable[[Tensor], QuantizedWeight]


def q4_0(rows: Tensor) -> QuantizedWeight:
    """Rows [outs, bytes] of blocks of 18 bytes: scale, numbers counted from 8."""
    blocks = _blocks(rows, 18)
    return _plain(_halves(blocks[..., 2:]), _float16(blocks[..., :2]), 8, 4)


def q4_1(rows: Tensor) -> QuantizedWeight:
    """Blocks of 20 bytes: scale, least, numbers."""
    blocks = _blocks(rows, 20)
    return _shifted(_halves(blocks[..., 4:]), _float16(blocks[..., :2]), _float16(blocks[..., 2:4]), 4)


def q5_0(rows: Tensor) -> QuantizedWeight:
    """Blocks of 22 bytes: scale, the fifth bits, the others; counted from 16."""
    blocks = _blocks(rows, 22)
    codes = _halves(blocks[..., 6:]) | _bits(blocks[..., 2:6]) << 4
    return _plain(codes, _float16(blocks[..., :2]), 16, 5)


def q5_1(rows: Tensor) -> QuantizedWeight:
    """Blocks of 24 bytes: scale, least, the fifth bits, the others."""
    blocks = _blocks(rows, 24)
    codes = _halves(blocks[..., 8:]) | _bits(blocks[..., 4:8]) << 4
    return _shifted(codes, _float16(blocks[..., :2]), _float16(blocks[..., 2:4]), 8)


def q8_0(rows: Tensor) -> QuantizedWeight:
    """Blocks of 34 bytes: scale, signed numbers."""
    blocks = _blocks(rows, 34)
    return _plain(blocks[..., 2:] ^ 128, _float16(blocks[..., :2]), 128, 8)


def q4_k(rows: Tensor) -> QuantizedWeight:
    """Blocks of 144 bytes: two scales, 12 bytes of 6-bit scales and mins, numbers of four pairs of parts."""
    blocks = _blocks(rows, 144)
    return _shifted(_nibble_pairs(blocks[..., 16:]), *_k_scales(blocks), 4)


def q5_k(rows: Tensor) -> QuantizedWeight:
    """Blocks of 176 bytes: as before with the fifth bits, of one part in each bit of 32 bytes, before the others."""
    blocks = _blocks(rows, 176)
    fifth = torch.stack([blocks[..., 16:48] >> part & 1 for part in range(K_PARTS)], dim=-2)
    return _shifted(_nibble_pairs(blocks[..., 48:]) | fifth.flatten(-2) << 4, *_k_scales(blocks), 8)


EXACT: Mapping[str, Reader] = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0, "Q4_K": q4_k, "Q5_K": q5_k,
}  # fmt: skip
"""Kinds of blocks that keep their numbers."""


def read(tensor: Any, order: Tensor | None, keep: bool) -> QuantizedWeight | Tensor:
    """The values of a tensor of `gguf.GGUFReader`, quantized where its blocks allow and `keep` says so, else float32.

    `order` is that of its rows. Raises NotSupported for a kind of blocks that nobody reads.
    """
    data, kind = tensor.data, tensor.tensor_type.name
    if kind in EXACT and keep:
        rows = torch.from_numpy(np.array(data).view(np.uint8))
        return EXACT[kind](rows if order is None else rows[order])
    values = torch.from_numpy(_dequantized(tensor.name, data, tensor.tensor_type))
    return values if order is None else values[order]


def _dequantized(name: str, data: Any, kind: Any) -> np.ndarray[Any, Any]:
    from gguf import dequantize

    try:
        return np.array(dequantize(data, kind), np.float32)
    except NotImplementedError:
        why = f"{name} is of the kind {kind.name}, which nobody here reads"
        raise NotSupported(f"{why}; quantize the original weights instead", why=why) from None


def places(architecture: str, layers: int, names: Iterable[str]) -> dict[str, str]:
    """For each tensor of a file the name of the module's, of whose tensors `names` are all."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == architecture)
    known = get_tensor_name_map(kind, layers)
    found = {}
    for name in names:
        base, dot, suffix = name.rpartition(".")
        if (place := known.get_name(base)) is not None:
            found[place + dot + suffix] = name
    return found


def row_order(name: str, outs: int, heads: int, key_heads: int) -> Tensor | None:
    """For a tensor of GGUF's Llama the rows of it in the order of transformers; None where it is the same."""
    count = _rotated(name, heads, key_heads)
    return None if count is None else torch.arange(outs).view(count, -1, 2).transpose(1, 2).flatten()


def halves_order(name: str, outs: int, heads: int, key_heads: int) -> Tensor | None:
    """The reverse: the rows of transformers in the order of GGUF's Llama."""
    count = _rotated(name, heads, key_heads)
    return None if count is None else torch.arange(outs).view(count, 2, -1).transpose(1, 2).flatten()


def _rotated(name: str, heads: int, key_heads: int) -> int | None:
    """How many heads a tensor has whose rows are in another order."""
    part = name.rpartition(".")[0].rpartition(".")[2]
    if part not in ROTATED:
        return None
    return heads if part == ROTATED[0] else key_heads


def _blocks(rows: Tensor, size: int) -> Tensor:
    """[outs, blocks, bytes]."""
    return rows.view(rows.shape[0], -1, size)


def _float16(pair: Tensor) -> Tensor:
    """Two bytes of each block as a number [outs, blocks]."""
    return pair.contiguous().view(torch.float16).squeeze(-1)


def _halves(packed: Tensor) -> Tensor:
    """16 bytes to 32 numbers: the low halves come first."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _bits(packed: Tensor) -> Tensor:
    """4 bytes to 32 bits, the lowest first."""
    return torch.stack([packed >> bit & 1 for bit in range(8)], dim=-1).flatten(-2)


def _nibble_pairs(packed: Tensor) -> Tensor:
    """128 bytes to 256 numbers: of each 32 bytes first the low halves, then the high ones."""
    quarters = packed.view(*packed.shape[:-1], K_PARTS // 2, GROUP)
    return torch.stack((quarters & 15, quarters >> 4), dim=-2).flatten(-3)


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and shifts [outs, groups] in float32 of blocks of 256 inputs; the products are exact in it.

    The numbers of the first four parts are whole bytes of 6 bits; those of the others lie in 4 bits of the last four
    bytes and the upper 2 of the others.
    """
    low, least, high = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scales = torch.cat((low & 63, high & 15 | low >> 2 & 48), dim=-1)
    mins = torch.cat((least & 63, high >> 4 | least >> 2 & 48), dim=-1)
    scale = _float16(blocks[..., :2]).float().unsqueeze(-1) * scales
    shift = _float16(blocks[..., 2:4]).float().unsqueeze(-1) * mins
    return scale.flatten(1), -shift.flatten(1)


def _plain(codes: Tensor, scale: Tensor, zero: int, bits: int) -> QuantizedWeight:
    scheme = scheme_of(bits, GROUP, zero)
    assert scheme is not None
    return kept(codes.flatten(1), scale, zero, GROUP, scheme)


def _shifted(codes: Tensor, scale: Tensor, shift: Tensor, width: int) -> QuantizedWeight:
    codes = codes.flatten(1)
    numbers = pack_nibbles(codes) if width == 4 else codes
    return QuantizedWeight(Scheme(width, GROUP, shift=True), numbers, scale, shift, codes.shape[1])

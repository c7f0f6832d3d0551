"""Quantized layers written as other projects write them, number by number, from what their papers and code say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Held:
    """Tensors in memory."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def read(self, name: str) -> Tensor:
        return self.tensors[name]


def drawn(outs: int, ins: int, size: int, bits: int, seed: int = 0, zero: int | None = None) -> dict[str, Any]:
    """Numbers [ins, outs], scales and zeros [groups, outs] of a layer."""
    random = np.random.default_rng(seed)
    groups = -(-ins // size)
    zeros = random.integers(1, 2**bits, (groups, outs)) if zero is None else np.full((groups, outs), zero)
    scales = (random.random((groups, outs)) * 0.02 + 0.001).astype(np.float16)
    return {"codes": random.integers(0, 2**bits, (ins, outs)), "zeros": zeros, "scales": scales}


def meant(layer: dict[str, Any], index: np.ndarray[Any, Any]) -> Tensor:
    """The weights [outs, ins]: (q - zero) * scale, computed in 64 bits, which is exact."""
    wide = (layer["codes"] - layer["zeros"][index]) * layer["scales"].astype(np.float64)[index]
    return torch.from_numpy(wide.T.copy()).float()


def packed_rows(numbers: np.ndarray[Any, Any], bits: int) -> Tensor:
    """Numbers [rows, columns] as one stream of bits for each column, cut into 32-bit words [words, columns]."""
    words = []
    for column in numbers.T:
        stream = sum(int(number) << bits * at for at, number in enumerate(column))
        words.append([stream >> 32 * at & 0xFFFFFFFF for at in range(len(column) * bits // 32)])
    return torch.from_numpy(np.array(words, np.uint32).view(np.int32).T.copy())


def as_gptq(name: str, layer: dict[str, Any], bits: int, less: int = 1, index: Any = None) -> dict[str, Tensor]:
    """A layer as AutoGPTQ packs it."""
    found = {
        f"{name}.qweight": packed_rows(layer["codes"], bits),
        f"{name}.qzeros": packed_rows((layer["zeros"].T - less) % 2**bits, bits).T.contiguous(),
        f"{name}.scales": torch.from_numpy(layer["scales"]),
    }
    if index is not None:
        found[f"{name}.g_idx"] = torch.from_numpy(np.asarray(index, np.int32))
    return found


def as_awq(name: str, layer: dict[str, Any]) -> dict[str, Tensor]:
    """A layer as AutoAWQ packs it: in each word, nibble i is output ORDER[i] of eight."""

    def words(numbers: np.ndarray[Any, Any]) -> Tensor:
        packed = np.zeros((numbers.shape[0], numbers.shape[1] // 8), np.uint32)
        for place, which in enumerate(AWQ_ORDER):
            packed |= numbers[:, which::8].astype(np.uint32) << np.uint32(4 * place)
        return torch.from_numpy(packed.view(np.int32).copy())

    return {
        f"{name}.qweight": words(layer["codes"]),
        f"{name}.qzeros": words(layer["zeros"]),
        f"{name}.scales": torch.from_numpy(layer["scales"]),
    }

"""Tensors written into a folder shard by shard, in the layout of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 512 << 20
"""A shard is held until it is full, so this is memory too."""


class Shards:
    """Writes tensors into a folder. Nothing can be loaded from it before `close`."""

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        self._folder, self._limit = folder, limit
        self._held: dict[str, torch.Tensor] = {}
        self._bytes = self.bytes = 0
        self._shards: list[list[str]] = []

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take a tensor, which must not change afterwards. Raises OSError."""
        if self._held and self._bytes + tensor.nbytes > self._limit:
            self._write()
        self._held[name] = tensor
        self._bytes += tensor.nbytes
        self.bytes += tensor.nbytes

    def close(self) -> None:
        """Write what is left, and the index where there is more than one shard. Raises OSError."""
        self._write()
        if len(self._shards) == 1:
            self._part(0).rename(self._folder / SINGLE)
            return
        placed: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05d}-of-{len(self._shards):05d}.safetensors"
            self._part(number).rename(self._folder / file)
            placed |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self.bytes}, "weight_map": placed}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _write(self) -> None:
        whole = {name: _whole(tensor) for name, tensor in self._held.items()}
        save_file(whole, self._part(len(self._shards)), metadata={"format": "pt"})
        self._shards.append([*self._held])
        self._held, self._bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number}.tmp"


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """With a storage of its own, as a file needs it."""
    tensor = tensor.contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()

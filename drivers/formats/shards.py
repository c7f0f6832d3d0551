"""Tensors written into a folder shard by shard, in the layout of Hugging Face.

A shard grows while tensors come, so that only some of them are in memory whatever its size: its head, which names the
place of each tensor, is written last, into room that was left for it and padded with spaces. The format is that of
github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 512 << 20
HELD_BYTES = 16 << 20
"""Tensors are held until they are so large together, so that small models have no room that was left for nothing."""
HEAD_BYTES = 1 << 18
"""Room for a head."""
ALIGNED = 8
"""What is no multiple of it is written at the end of a shard, since there are no gaps between tensors."""

NAMES: Mapping[torch.dtype, str] = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.float8_e8m0fnu: "F8_E8M0", torch.uint16: "U16", torch.int16: "I16",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.uint32: "U32", torch.int32: "I32", torch.float32: "F32",
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64",
}  # fmt: skip


class Shards:
    """Writes tensors into a folder. Nothing can be loaded from it before `close`."""

    def __init__(self, folder: Path, limit: int = SHARD_BYTES, held: int = HELD_BYTES) -> None:
        self._folder, self._limit, self._held = folder, limit, held
        self._shards = [self._next(0)]
        self.bytes = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take a tensor, which must not change afterwards. Raises OSError."""
        shard = self._shards[-1]
        if shard.full(name, tensor, self._limit):
            shard.close()
            shard = self._next(len(self._shards))
            self._shards.append(shard)
        shard.add(name, tensor)
        self.bytes += tensor.nbytes

    def close(self) -> None:
        """Write what is left, and the index where there is more than one shard. Raises OSError."""
        self._shards[-1].close()
        count = len(self._shards)
        if count == 1:
            self._shards[0].path.rename(self._folder / SINGLE)
            return
        placed: dict[str, str] = {}
        for number, shard in enumerate(self._shards, 1):
            file = f"model-{number:05d}-of-{count:05d}.safetensors"
            shard.path.rename(self._folder / file)
            placed |= dict.fromkeys(shard.entries, file)
        index = {"metadata": {"total_size": self.bytes}, "weight_map": placed}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _next(self, number: int) -> _Shard:
        return _Shard(self._folder / f"part-{number}.tmp", self._held)


class _Shard:
    """One file.

    Attributes:
        entries: what its head says of each tensor that was written.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.entries = path, dict[str, dict[str, Any]]()
        self._limit = limit
        self._waiting: dict[str, torch.Tensor] = {}
        self._odd: dict[str, torch.Tensor] = {}
        self._begun = False
        self._bytes = self._at = 0
        self._head = len(_head({}))

    def full(self, name: str, tensor: torch.Tensor, limit: int) -> bool:
        """Whether a tensor is to begin another shard."""
        too_large = self._bytes + tensor.nbytes > limit or self._head + _room(name, tensor) > HEAD_BYTES
        return bool(self._bytes) and too_large

    def add(self, name: str, tensor: torch.Tensor) -> None:
        (self._odd if tensor.nbytes % ALIGNED else self._waiting)[name] = tensor
        self._bytes += tensor.nbytes
        self._head += _room(name, tensor)
        if sum(each.nbytes for each in self._waiting.values()) > self._limit:
            self._write(HEAD_BYTES)

    def close(self) -> None:
        """Write the rest, and the head; in a file that was not begun, it has no more room than it needs."""
        self._waiting |= dict(sorted(self._odd.items(), key=lambda item: -item[1].element_size()))
        entries, at = dict(self.entries), self._at
        for name, tensor in self._waiting.items():
            entries[name] = _entry(tensor, at)
            at += tensor.nbytes
        head = _head(entries)
        room = HEAD_BYTES if self._begun else -(-len(head) // ALIGNED) * ALIGNED
        self._write(room)
        with self.path.open("r+b") as file:
            file.write(room.to_bytes(8, "little") + head.ljust(room))

    def _write(self, room: int) -> None:
        """Write what waits behind a head with so much room."""
        with self.path.open("r+b" if self._begun else "xb") as file:
            self._begun = True
            file.seek(8 + room + self._at)
            for name, tensor in self._waiting.items():
                file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
                self.entries[name] = _entry(tensor, self._at)
                self._at += tensor.nbytes
        self._waiting = {}


def _head(entries: Mapping[str, Any]) -> bytes:
    return json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()


def _entry(tensor: torch.Tensor, at: int) -> dict[str, Any]:
    offsets = [at, at + tensor.nbytes]
    return {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}


def _room(name: str, tensor: torch.Tensor) -> int:
    """Bytes of a head that a tensor takes at most."""
    return len(json.dumps({name: _entry(tensor, SHARD_BYTES * 1000)}))

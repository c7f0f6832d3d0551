"""Weights that sleep in pinned host memory, and wake by a copy back.

Tensors stay the objects that they are: only the memory behind them is given back and taken again, so that whatever
refers to them (modules, views, merged products) needs no change. What lies in segments has the addresses that it had;
to the rest the device may give others. Then graphs that were captured for the old ones are captured again, and `wake`
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ...engine.place import Report
from .copies import BUFFER_BYTES, Lanes


class Memory(Protocol):
    """Memory of the device behind some storages."""

    def drop(self) -> None:
        """Give it back, as far as it is there."""

    def fill(self) -> None:
        """Take it again, with any content. Raises what allocating raises; then nothing is taken."""

    def moved(self) -> str:
        """Why addresses have changed since, empty when none has."""


class Blocks:
    """Memory from torch's own allocator, which may give other blocks than before."""

    def __init__(self, storages: Sequence[torch.UntypedStorage]) -> None:
        self._sizes = [(each, each.nbytes(), each.data_ptr()) for each in storages]

    def drop(self) -> None:
        for storage, _, _ in self._sizes:
            storage.resize_(0)

    def fill(self) -> None:
        try:
            for storage, size, _ in self._sizes:
                storage.resize_(size)
        except (RuntimeError, MemoryError):
            self.drop()
            raise

    def moved(self) -> str:
        moved = sum(1 for storage, size, address in self._sizes if size and storage.data_ptr() != address)
        return f"{moved} of {len(self._sizes)} blocks of memory lie elsewhere since it woke" if moved else ""


class Sleeping:
    """Storages without memory, and their content in pieces of host memory."""

    def __init__(
        self, kept: Sequence[torch.UntypedStorage], memories: Sequence[Memory], lanes: Lanes, piece: int = BUFFER_BYTES
    ) -> None:
        """Copy what is kept, then give all memory back. `memories` are those of what is kept, and of what is lost."""
        self._lanes, self._kept, self._memories = lanes, kept, memories
        self.host_bytes = sum(each.nbytes() for each in kept)
        self._pieces = [lanes.buffer(min(piece, self.host_bytes - at)) for at in range(0, self.host_bytes, piece)]
        for device, host in self._parts():
            lanes.send(device, host)
        lanes.mark()()
        self._drop()

    def wake(self, report: Report) -> str:
        """Take memory again and fill it; why addresses have changed, empty when none has.

        Raises what allocating raises; then nothing is taken, and it can be tried again.
        """
        try:
            for memory in self._memories:
                memory.fill()
        except (RuntimeError, MemoryError):
            self._drop()
            raise
        done = 0
        for device, host in self._parts():
            self._lanes.send(host, device)
            done += len(host)
            report(done, self.host_bytes)
        self._lanes.mark()()
        self._pieces.clear()
        return "; ".join(filter(None, (memory.moved() for memory in self._memories)))

    def _drop(self) -> None:
        for memory in self._memories:
            memory.drop()

    def _parts(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Each part of what is kept, and its place in host memory: storages lie there one after the other."""
        number = at = 0
        for storage in self._kept:
            content = contents(storage)
            done = 0
            while done < len(content):
                piece = self._pieces[number]
                count = min(len(content) - done, len(piece) - at)
                yield content[done : done + count], piece[at : at + count]
                done, at = done + count, at + count
                if at == len(piece):
                    number, at = number + 1, 0


def put(
    kept: Iterable[Tensor], dropped: Iterable[Tensor], lanes: Lanes, piece: int = BUFFER_BYTES,
    memories: Callable[[Sequence[torch.UntypedStorage]], Sequence[Memory]] = lambda storages: [Blocks(storages)],
) -> Sleeping:  # fmt: skip
    """Let tensors sleep: the content of `kept` stays, that of `dropped` is lost. `memories`: what is behind them."""
    keep, lost = storages_of(kept, dropped)
    return Sleeping(keep, memories([*keep, *lost]), lanes, piece)


def storages_of(
    kept: Iterable[Tensor], dropped: Iterable[Tensor]
) -> tuple[list[torch.UntypedStorage], list[torch.UntypedStorage]]:
    """The memory behind tensors that are kept, and that behind others alone; each once."""
    keep, lost = _by_address(kept), _by_address(dropped)
    return list(keep.values()), [storage for address, storage in lost.items() if address not in keep]


def _by_address(tensors: Iterable[Tensor]) -> dict[int, torch.UntypedStorage]:
    every = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage for storage in every if storage.nbytes()}


def contents(storage: torch.UntypedStorage) -> Tensor:
    """What a storage holds, as [N] uint8."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)

"""Weights that sleep in pinned host memory, and wake by a copy back.

Tensors stay the objects that they are: only the memory behind them is given back and taken again, so that whatever
refers to them (modules, views, merged products) needs no change. The device may give other addresses than before; then
graphs that were captured for the old ones are captured again, and `wake` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ...engine.place import Report
from .copies import BUFFER_BYTES, Lanes


class Sleeping:
    """Storages without memory, and their content in pieces of host memory."""

    def __init__(
        self, kept: Sequence[torch.UntypedStorage], dropped: Sequence[torch.UntypedStorage], lanes: Lanes,
        piece: int = BUFFER_BYTES,
    ) -> None:  # fmt: skip
        """Copy what is kept, then give all memory back."""
        self._lanes, self._kept = lanes, kept
        self._sizes = [(each, each.nbytes(), each.data_ptr()) for each in (*kept, *dropped)]
        self.host_bytes = sum(each.nbytes() for each in kept)
        self._pieces = [lanes.buffer(min(piece, self.host_bytes - at)) for at in range(0, self.host_bytes, piece)]
        for device, host in self._parts():
            lanes.send(device, host)
        lanes.mark()()
        self._empty()

    def wake(self, report: Report) -> str:
        """Take memory again and fill it; why addresses have changed, empty when none has.

        Raises what allocating raises; then nothing is taken, and it can be tried again.
        """
        try:
            for storage, size, _ in self._sizes:
                storage.resize_(size)
        except (RuntimeError, MemoryError):
            self._empty()
            raise
        done = 0
        for device, host in self._parts():
            self._lanes.send(host, device)
            done += len(host)
            report(done, self.host_bytes)
        self._lanes.mark()()
        self._pieces.clear()
        moved = sum(1 for storage, size, address in self._sizes if size and storage.data_ptr() != address)
        return f"{moved} of {len(self._sizes)} blocks of memory lie elsewhere since it woke" if moved else ""

    def _empty(self) -> None:
        for storage, _, _ in self._sizes:
            storage.resize_(0)

    def _parts(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Each part of what is kept, and its place in host memory: storages lie there one after the other."""
        number = at = 0
        for storage in self._kept:
            content = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            done = 0
            while done < len(content):
                piece = self._pieces[number]
                count = min(len(content) - done, len(piece) - at)
                yield content[done : done + count], piece[at : at + count]
                done, at = done + count, at + count
                if at == len(piece):
                    number, at = number + 1, 0


def put(kept: Iterable[Tensor], dropped: Iterable[Tensor], lanes: Lanes, piece: int = BUFFER_BYTES) -> Sleeping:
    """Let tensors sleep: the content of `kept` stays, that of `dropped` is lost."""
    keep = _storages(kept)
    return Sleeping(list(keep.values()), [s for at, s in _storages(dropped).items() if at not in keep], lanes, piece)


def _storages(tensors: Iterable[Tensor]) -> dict[int, torch.UntypedStorage]:
    """The memory behind tensors by its address, each once."""
    every = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage for storage in every if storage.nbytes()}

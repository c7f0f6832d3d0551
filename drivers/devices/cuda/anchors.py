"""Tensors whose addresses stay while they sleep: their memory is in segments, which lose it and get it again.

Torch allocates in segments through a pool of its own for each model. When a model is loaded, each of its storages gives
its block back and takes one of the pool, so that whatever refers to a tensor needs no change; only then are graphs
captured. See `segments.c`, and "Memory management" in torch's notes on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ...engine.memory import out_of_memory
from ...engine.place import Anchor
from .resting import Blocks, Memory, contents, storages_of
from .segments import GIVE, TAKE, Segments

Routed = Callable[[], AbstractContextManager[Any]]
"""While it is entered, this thread's allocations are made in a pool."""


class Books(Protocol):
    """Which segments there are; see `Segments`."""

    def around(self, address: int) -> int | None:
        """The segment that an address is in."""

    def drop(self, bases: Sequence[int]) -> None:
        """Take their memory."""

    def fill(self, bases: Sequence[int]) -> None:
        """Give them some again."""


@dataclass(frozen=True)
class Mapped:
    """Memory of segments. `collect` waits for the device, and gives it back what torch holds and does not use."""

    books: Books
    bases: Sequence[int]
    collect: Callable[[], None]

    def drop(self) -> None:
        self.collect()
        self.books.drop(self.bases)

    def fill(self) -> None:
        try:
            self.books.fill(self.bases)
        except RuntimeError as error:
            if out_of_memory(error) is None:
                raise
            self.collect()
            self.books.fill(self.bases)

    def moved(self) -> str:
        return ""


def memories(storages: Sequence[torch.UntypedStorage], books: Books, collect: Callable[[], None]) -> list[Memory]:
    """What is behind storages: segments, and blocks of torch's."""
    found = [(storage, books.around(storage.data_ptr())) for storage in storages]
    bases = sorted({base for _, base in found if base is not None})
    others = [storage for storage, base in found if base is None]
    every: list[Memory] = [Mapped(books, bases, collect)] if bases else []
    return [*every, Blocks(others)] if others else every


def settle(kept: Iterable[Tensor], dropped: Iterable[Tensor], routed: Routed, books: Books) -> str:
    """Move storages into segments, the content of `kept` with them; why not all are there, empty when they are."""
    keep, lost = storages_of(kept, dropped)
    for storage, whole in [*((each, True) for each in keep), *((each, False) for each in lost)]:
        why = _move(storage, routed, whole)
        if not why and books.around(storage.data_ptr()) is None:
            why = "torch does not allocate in segments here"
        if why:
            return why
    return ""


def _move(storage: torch.UntypedStorage, routed: Routed, whole: bool) -> str:
    """Why a storage is where it was, empty when it is not; its content is the same if it is to be `whole`."""
    size, why = storage.nbytes(), ""
    try:
        content = contents(storage).clone() if whole else None
    except (RuntimeError, MemoryError) as error:
        return _full(error)
    storage.resize_(0)
    try:
        with routed():
            storage.resize_(size)
    except (RuntimeError, MemoryError) as error:
        why = _full(error)
        storage.resize_(size)
    if content is not None:
        contents(storage).copy_(content)
    return why


def _full(error: BaseException) -> str:
    """Raises the error when it does not mean that there is no memory."""
    if out_of_memory(error) is None:
        raise error
    return "the device has no memory for that"


class Pools:
    """Torch's way to the segments of a process."""

    def __init__(self, segments: Segments) -> None:
        """Raises NotSupported where torch has no such allocators."""
        self.segments = segments
        try:
            self._allocator = torch.cuda.memory.CUDAPluggableAllocator(str(segments.path), TAKE, GIVE)
        except (AttributeError, OSError, RuntimeError) as error:
            raise NotSupported(f"torch takes no allocator of another library: {error}") from error

    def anchor(self, kept: Iterable[Tensor], dropped: Iterable[Tensor], device: torch.device) -> Anchor:
        """Move tensors into a pool of their own, and give back what they had."""
        pool = torch.cuda.MemPool(self._allocator.allocator())  # type: ignore[no-untyped-call]
        why = settle(kept, dropped, lambda: torch.cuda.use_mem_pool(pool, device), self.segments)
        torch.cuda.empty_cache()
        return Anchor(None if why else pool, why)

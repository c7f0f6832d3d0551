"""Tensors that move into segments and keep their addresses while they sleep, on memory of the host."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence

import pytest
import torch
from late_lanes import LateLanes

from llmos.drivers.devices.cuda.anchors import memories, settle
from llmos.drivers.devices.cuda.resting import put

FULL = "CUDA error: out of memory (2)"


class Pages:
    """Segments whose memory is taken by writing over it; `full` of the next tries to have it again fail."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._arrays = [(ctypes.c_uint8 * size)() for size in sizes]
        self.bases = [ctypes.addressof(each) for each in self._arrays]
        self.away: list[int] = []
        self.full = 0

    def tensor(self, number: int) -> torch.Tensor:
        return torch.frombuffer(self._arrays[number], dtype=torch.uint8)

    def around(self, address: int) -> int | None:
        found = [base for base, each in zip(self.bases, self._arrays, strict=True) if 0 <= address - base < len(each)]
        return found[0] if found else None

    def drop(self, bases: Sequence[int]) -> None:
        self.away = sorted({*self.away, *bases})
        for base in bases:
            ctypes.memset(base, 255, len(self._arrays[self.bases.index(base)]))

    def fill(self, bases: Sequence[int]) -> None:
        if self.full:
            self.full -= 1
            raise RuntimeError(FULL)
        self.away = [base for base in self.away if base not in bases]


def test_what_lies_in_segments_keeps_its_addresses_and_the_rest_its_content() -> None:
    pages = Pages([100, 50])
    weight, cache, other = pages.tensor(0), pages.tensor(1), torch.arange(20)
    weight.copy_(torch.arange(100))
    view, addresses = weight[10:20], (weight.data_ptr(), cache.data_ptr())
    collected: list[list[int]] = []
    sleeping = put(
        [weight, view, other], [cache], LateLanes(), 32,
        lambda storages: memories(storages, pages, lambda: collected.append(list(pages.away))),
    )  # fmt: skip
    assert pages.away == sorted(pages.bases) and other.untyped_storage().nbytes() == 0
    assert collected == [[]], "the device has done all before memory goes"
    assert sleeping.host_bytes == 100 + 160 and weight.untyped_storage().nbytes() == 100
    sleeping.wake(lambda done, total: None)
    assert pages.away == [] and (weight.data_ptr(), cache.data_ptr()) == addresses
    assert view.tolist() == list(range(10, 20)) and other.tolist() == list(range(20))


def test_all_in_segments_is_nothing_to_capture_again() -> None:
    pages = Pages([10])
    sleeping = put([pages.tensor(0)], [], LateLanes(), 4, lambda each: memories(each, pages, lambda: None))
    assert sleeping.wake(lambda done, total: None) == ""


def test_without_memory_what_torch_holds_is_given_back_and_it_is_tried_again() -> None:
    pages, collected = Pages([10]), []
    weight, other = pages.tensor(0), torch.ones(3)
    weight.fill_(7)
    sleeping = put(
        [weight, other], [], LateLanes(), 4, lambda each: memories(each, pages, lambda: collected.append(None))
    )
    pages.full = 2
    with pytest.raises(RuntimeError, match="out of memory"):
        sleeping.wake(lambda done, total: None)
    assert pages.away == pages.bases and other.untyped_storage().nbytes() == 0, "it sleeps on"
    collected.clear()
    pages.full = 1
    sleeping.wake(lambda done, total: None)
    assert collected == [None] and weight.tolist() == [7] * 10 and other.tolist() == [1.0] * 3


class Everywhere:
    """Says which addresses are in segments."""

    def __init__(self, inside: bool = True) -> None:
        self._inside = inside

    def around(self, address: int) -> int | None:
        return address if self._inside else None

    def drop(self, bases: Sequence[int]) -> None:
        """Nothing is taken here."""

    fill = drop


def test_storages_move_and_whatever_refers_to_them_sees_the_same() -> None:
    weight = torch.arange(8.0)
    parts = weight[:4], weight[4:]
    cache, alone = torch.ones(6), torch.arange(3)
    routes: list[str] = []

    @contextlib.contextmanager
    def routed() -> Iterator[None]:
        routes.append("in")
        yield
        routes.append("out")

    assert settle([weight, *parts, alone], [cache, weight], routed, Everywhere()) == ""
    assert routes == ["in", "out"] * 3, "each storage once"
    assert weight.tolist() == list(range(8)) and parts[1].tolist() == [4.0, 5.0, 6.0, 7.0]
    assert parts[0].data_ptr() == weight.data_ptr() and alone.tolist() == [0, 1, 2]
    assert cache.untyped_storage().nbytes() == 24


def test_a_torch_that_goes_its_own_way_is_noticed() -> None:
    weight = torch.arange(4.0)
    why = settle([weight], [], contextlib.nullcontext, Everywhere(inside=False))
    assert "does not allocate in segments" in why and weight.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("said", [FULL, "CUDA error: invalid argument"])
def test_what_does_not_fit_stays_where_it_was(said: str) -> None:
    weight, cache = torch.arange(4.0), torch.ones(2)

    @contextlib.contextmanager
    def full() -> Iterator[None]:
        raise RuntimeError(said)
        yield

    if said == FULL:
        assert "no memory" in settle([weight], [cache], full, Everywhere())
        assert weight.tolist() == [0.0, 1.0, 2.0, 3.0] and cache.untyped_storage().nbytes() == 8
    else:
        with pytest.raises(RuntimeError, match="invalid argument"):
            settle([weight], [cache], full, Everywhere())

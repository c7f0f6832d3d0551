"""Handles of GPU memory, with what answers like CUDA's driver."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from llmos.drivers.devices.cuda import leases
from llmos.drivers.devices.cuda.leases import HANDLE_BYTES, OUT_OF_MEMORY, IpcLeases
from llmos.syscalls.errors import Exists, NoDeviceMemory, NotFound, NotSupported


class Driver:
    """Memory as numbers."""

    def __init__(self, free: int = 1000, shares: bool = True) -> None:
        self.free, self.shares = free, shares
        self.held: dict[int, int] = {}

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:
        if size.value > self.free:
            return OUT_OF_MEMORY if size.value < 1 << 40 else 1
        address._obj.value = place = 4096 * (len(self.held) + 1)
        self.held[place], self.free = size.value, self.free - size.value
        return 0

    def cuIpcGetMemHandle(self, handle: Any, address: Any) -> int:
        handle._obj.raw = address.value.to_bytes(HANDLE_BYTES, "little")
        return 0 if self.shares else 801

    def cuMemFree_v2(self, address: Any) -> int:
        self.free += self.held.pop(address.value)
        return 0


def test_a_handle_names_memory_until_the_lease_ends() -> None:
    driver = Driver()
    held = IpcLeases(driver)
    given = held.give("l", 600)
    assert (given.kind, given.handle) == ("cuda-ipc", (4096).to_bytes(HANDLE_BYTES, "little"))
    assert (held.bytes, [row.driver for row in held.rows()], driver.free) == (600, [600], 400)
    with pytest.raises(Exists):
        held.give("l", 1)
    with pytest.raises(NoDeviceMemory):
        held.give("k", 500)
    assert held.end("l") == 600 and driver.free == 1000
    with pytest.raises(NotFound):
        held.end("l")


def test_what_cannot_be_shared_is_given_back() -> None:
    driver = Driver(shares=False)
    with pytest.raises(NotSupported):
        IpcLeases(driver).give("l", 600)
    with pytest.raises(NotSupported, match="cuMemAlloc ended with 1"):
        IpcLeases(driver).give("l", 1 << 41)
    assert driver.free == 1000


def test_without_a_driver_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LIBRARY", "libnothing-of-the-kind.so")
    with pytest.raises(NotSupported):
        IpcLeases().give("l", 1)
    assert ctypes.CDLL(None)


def test_closing_gives_all_back() -> None:
    driver = Driver()
    held = IpcLeases(driver)
    for name in "ab":
        held.give(name, 100)
    held.close()
    assert driver.free == 1000 and held.rows() == []

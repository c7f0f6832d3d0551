"""Bytes of a GPU that another program opens by a handle, taken from CUDA's driver and not from torch's allocator, which
gives parts of larger blocks.

The handle is of cuIpcGetMemHandle; the other program opens it with cudaIpcOpenMemHandle. See the CUDA Driver API,
"Memory Management". Calls need the context that torch has made current.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from llmos.syscalls.errors import Exists, NoDeviceMemory, NotFound, NotSupported

from ...contract import Leased, Row

LIBRARY = "libcuda.so.1"
HANDLE_BYTES = 64
"""CU_IPC_HANDLE_SIZE."""
OUT_OF_MEMORY = 2
"""CUDA_ERROR_OUT_OF_MEMORY."""


class IpcLeases:
    """The allocations that were made and not ended yet."""

    def __init__(self, library: Any = None) -> None:
        """`library` answers as CUDA's driver; it is loaded when it is needed first."""
        self._library = library
        self._held: dict[str, tuple[int, int]] = {}

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._held.values())

    def give(self, lease: str, size: int, _path: str = "") -> Leased:
        """Raises Exists, NoDeviceMemory, NotSupported where the driver shares no memory."""
        if lease in self._held:
            raise Exists(f"there is a lease {lease} already")
        api, address, handle = self._api(), ctypes.c_uint64(), (ctypes.c_char * HANDLE_BYTES)()
        status = api.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        if status == OUT_OF_MEMORY:
            raise NoDeviceMemory(f"the GPU gives no {size} bytes to share", needed=size)
        if status:
            raise _refused(f"cuMemAlloc ended with {status}")
        status = api.cuIpcGetMemHandle(ctypes.byref(handle), address)
        if status:
            api.cuMemFree_v2(address)
            raise _refused(f"cuIpcGetMemHandle ended with {status}")
        self._held[lease] = address.value, size
        return Leased("cuda-ipc", handle=bytes(handle.raw))

    def end(self, lease: str) -> int:
        """Raises NotFound."""
        if lease not in self._held:
            raise NotFound(f"there is no lease {lease} on this device")
        address, size = self._held.pop(lease)
        self._api().cuMemFree_v2(ctypes.c_uint64(address))
        return size

    def rows(self) -> Sequence[Row]:
        return [Row("lease", lease, size, size, size) for lease, (_, size) in self._held.items()]

    def close(self) -> None:
        """End all."""
        for lease in list(self._held):
            self.end(lease)

    def _api(self) -> Any:
        if self._library is None:
            try:
                self._library = ctypes.CDLL(LIBRARY)
            except OSError as error:
                raise _refused(str(error)) from error
        return self._library


def _refused(why: str) -> NotSupported:
    return NotSupported(f"this GPU shares no memory with other programs: {why}", why=why)

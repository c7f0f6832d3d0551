"""Which of a process's memory is really there: what the page tables of the system say.

Memory that was asked for and never written, and pages of a file that nobody has read, take none of the machine's.
See Linux's Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import torch

PAGES = Path("/proc/self/pagemap")
COUNTS = Path("/proc/self/statm")
ENTRY = 8
"""Bytes of a page's entry; its highest bit is set where the page is present."""


def absent_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of whole pages behind tensors that are not in memory; 0 where the system does not tell."""
    storages = [tensor.untyped_storage() for tensor in tensors if not tensor.is_mkldnn and tensor.device.type == "cpu"]
    spans = {storage.data_ptr(): storage.nbytes() for storage in storages}
    try:
        table = os.open(PAGES, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return sum(_absent(table, address, size) for address, size in spans.items())
    finally:
        os.close(table)


def resident_now() -> int:
    """Resident bytes of this process, at once; 0 where the system does not tell."""
    try:
        return int(COUNTS.read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def _absent(table: int, address: int, size: int) -> int:
    first, end = -(-address // mmap.PAGESIZE), (address + size) // mmap.PAGESIZE
    if end <= first:
        return 0
    entries = bytearray(os.pread(table, ENTRY * (end - first), ENTRY * first))
    if not entries:
        return 0
    return int((torch.frombuffer(entries, dtype=torch.int64) >= 0).sum()) * mmap.PAGESIZE

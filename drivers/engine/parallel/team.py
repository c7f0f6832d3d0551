"""What ranks do together: sums and rows of numbers, the same calls in the same order on each of them."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed
from torch import Tensor

INTERFACES = Path("/sys/class/net")
LOOPBACK_FLAG = 0x8
"""IFF_LOOPBACK of netdevice(7)."""

INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class RankLost(Exception):
    """A rank is gone, or out of step with the others: nothing that they share can go on. Ends the process."""


class Team(Protocol):
    """The ranks of a model, seen from one of them. Rank 0 is the one that samples."""

    @property
    def rank(self) -> int:
        """Which one this is, from 0."""

    @property
    def ranks(self) -> int:
        """How many there are."""

    def sum(self, part: Tensor) -> Tensor:
        """The sum of what each has, which may take the place of `part`."""

    def gather(self, part: Tensor) -> Tensor:
        """The parts [.., N] of all, one after the other [.., ranks * N]."""


class Planned:
    """A team on paper, for modules without values: the first of so many ranks."""

    rank = 0

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks

    def sum(self, part: Tensor) -> Tensor:
        return part

    def gather(self, part: Tensor) -> Tensor:
        return torch.cat([part] * self.ranks, dim=-1)


class Joined:
    """The team of this process, which `join` has made: torch.distributed's default group."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.ranks = torch.distributed.get_world_size()

    def sum(self, part: Tensor) -> Tensor:
        part = part.contiguous()
        with _lost():
            torch.distributed.all_reduce(part)
        return part

    def gather(self, part: Tensor) -> Tensor:
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(self.ranks)]
        with _lost():
            torch.distributed.all_gather(parts, part)
        return torch.cat(parts, dim=-1)


def join(meeting: Path, rank: int, ranks: int, device: torch.device, seconds: float) -> Joined:
    """Meet the others by a file that all name, and stay together until `leave`.

    No collective, and not the meeting itself, waits longer than `seconds`; then RankLost. Sockets are
    bound to the loopback interface alone.
    """
    with _loopback_only(), _lost():
        torch.distributed.init_process_group(
            BACKENDS[device.type], f"file://{meeting}", rank=rank, world_size=ranks,
            timeout=timedelta(seconds=seconds), device_id=device if device.type == "cuda" else None,
        )  # fmt: skip
        team = Joined()
        team.sum(torch.zeros(1, device=device))  # what the first collective opens must find the interface, too
    return team


def leave() -> None:
    """Close what `join` has opened; nothing where there is no team."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RankLost(f"the ranks do not come together: {error}") from error


@contextmanager
def meeting_place() -> Iterator[Path]:
    """The path of a file that ranks can meet by, in a folder that only this user may enter."""
    with tempfile.TemporaryDirectory(prefix="llmos-ranks-") as folder:
        yield Path(folder) / "meeting"


def loopback() -> str:
    """The name of the interface that does not leave the machine."""
    flags = {name: int((INTERFACES / name / "flags").read_text(), 16) for _, name in socket.if_nameindex()}
    return next(name for name, each in flags.items() if each & LOOPBACK_FLAG)


@contextmanager
def _loopback_only() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in INTERFACE_VARIABLES}
    os.environ.update(dict.fromkeys(INTERFACE_VARIABLES, loopback()))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

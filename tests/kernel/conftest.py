"""Kernels in this process, see `scripted`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from host_stand_ins import HeldChannel, Hosts
from scripted import Inside, Program, inside
from watching import Loop

from llmos.kernel import supervisor


@pytest.fixture
def kernel(folder: Path) -> Iterator[Inside]:
    """A kernel with a null device and both file systems, all scripted."""
    with inside(folder, drivers="null0,models,files") as kernel:
        yield kernel


@pytest.fixture
def program(kernel: Inside) -> Program:
    """A session of the kernel's own user."""
    return kernel.program()


@pytest.fixture
def live(folder: Path) -> Iterator[Inside]:
    """A kernel on a real loop, for what starts processes."""
    loop = Loop()
    with inside(folder, loop=loop, drivers="models") as kernel:
        yield kernel
    loop.close()


@pytest.fixture
def hosts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """A supervisor whose hosts say what the test says."""
    monkeypatch.setattr(supervisor, "Channel", HeldChannel)
    hosts = Hosts(folder)
    yield hosts
    hosts.close()

"""Kernels for system tests: one for each module, or one for each test that harms it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.footprint import Footprint
from system.kernel_process import ALL, KernelProcess, running
from system.model_folder import write_model
from system.raw_client import RawClient


@pytest.fixture
def kernel(folder: Path) -> Iterator[KernelProcess]:
    """A kernel of this test's own, with a model /models/null."""
    write_model(folder / "home/models/null")
    with running(folder) as kernel:
        yield kernel


@pytest.fixture
def client(kernel: KernelProcess) -> Iterator[RawClient]:
    """A session with the kernel of this test; its null device is ready."""
    with kernel.client() as client:
        client.await_driver("ready")
        yield client


@pytest.fixture(scope="module")
def shared_kernel() -> Iterator[KernelProcess]:
    """A kernel that the tests of a module share. Its hosts must survive them: new ones would count as left behind."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        write_model(Path(path) / "home/models/null")
        with running(Path(path), drivers=ALL) as kernel:
            with kernel.client() as client:
                for driver in ("null0", "models", "files"):
                    client.await_driver("ready", driver)
            yield kernel


@pytest.fixture
def shared(shared_kernel: KernelProcess) -> Iterator[RawClient]:
    """A session with the kernel of this module."""
    with shared_kernel.client() as client:
        yield client


@pytest.fixture
def footprint(shared_kernel: KernelProcess) -> Iterator[Footprint]:
    """What the kernel of this module holds; nothing more after the test."""
    with shared_kernel.client("footprint") as client:
        footprint = Footprint(shared_kernel, client)
        yield footprint
        footprint.gone()

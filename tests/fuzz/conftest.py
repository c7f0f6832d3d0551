"""Kernels that are fuzzed: one for each module. What it takes to come through is the same for all examples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.footprint import Footprint
from system.kernel_process import ALL, KernelProcess, running
from system.model_folder import write_model
from system.raw_client import RawClient


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelProcess]:
    """A kernel with a null device, models and files. After all examples it holds nothing and no host has died."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        write_model(Path(path) / "home/models/null")
        with running(Path(path), drivers=ALL) as kernel, kernel.client("footprint") as client:
            for driver in ("null0", "models", "files"):
                client.await_driver("ready", driver)
            footprint = Footprint(kernel, client)
            yield kernel
            for driver in ("null0", "models", "files"):
                assert client.driver(driver)["fields"]["restarts"] == 0, client.driver(driver)
            footprint.gone()


@pytest.fixture
def witness(kernel: KernelProcess) -> Iterator[RawClient]:
    """A session that must not notice what others send."""
    with kernel.client("witness") as client:
        yield client

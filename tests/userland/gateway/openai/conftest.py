"""One kernel and one gateway for all tests of this folder: they change nothing that the others see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateway_server import GatewayServer, kernel_for_gateway, serving
from system.kernel_process import KernelProcess


@pytest.fixture(scope="session")
def gateway_kernel() -> Iterator[KernelProcess]:
    """The kernel of these tests."""
    with kernel_for_gateway() as kernel:
        yield kernel


@pytest.fixture(scope="session")
def module_gateway(gateway_kernel: KernelProcess) -> Iterator[GatewayServer]:
    """The gateway of these tests."""
    with serving(gateway_kernel) as server:
        yield server

"""A gateway for each module, before a kernel of its own. See `gateway_server`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateway_server import GatewayServer, kernel_for_gateway, serving
from system.kernel_process import KernelProcess


@pytest.fixture(scope="module")
def gateway_kernel() -> Iterator[KernelProcess]:
    """The kernel of this module, with drivers null0, models and files, and the models null, other and org/third."""
    with kernel_for_gateway() as kernel:
        yield kernel


@pytest.fixture(scope="module")
def module_gateway(gateway_kernel: KernelProcess) -> Iterator[GatewayServer]:
    """The gateway of this module."""
    with serving(gateway_kernel) as server:
        yield server


@pytest.fixture
def gateway(module_gateway: GatewayServer) -> Iterator[GatewayServer]:
    """The gateway of this module; its clients and the sessions of keys are closed after each test."""
    yield module_gateway
    module_gateway.forget()

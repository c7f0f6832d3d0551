"""A real gateway in this process, on a loop in a thread of its own, before a real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from system.kernel_process import ALL, KernelProcess, running
from system.model_folder import write_model

from llmos.userland.gateway.__main__ import wire
from llmos.userland.gateway.core.app import build
from llmos.userland.gateway.core.serving import Server
from llmos.userland.gateway.core.settings import address_of, settings_of
from llmos.userland.gateway.core.wiring import Gateway

T = TypeVar("T")

PATIENCE_S = 30.0


class Booted:
    """What `GatewayServer` needs to know of a kernel that `boot` started."""

    def __init__(self, system: Any, home: Path) -> None:
        self.socket = Path(system.stat().fields["runtime"]) / "kernel.sock"
        self.home, self.models = home, home / "models"


class GatewayServer:
    """A gateway at `url` and at the Unix socket `socket`.

    Args:
        kernel: before which it stands. The keys lie in a folder of the gateway's own.
        settings: beside the address.
    """

    def __init__(self, kernel: KernelProcess | Booted, **settings: Any) -> None:
        self.kernel = kernel
        self.folder = tempfile.TemporaryDirectory(prefix="t")
        self.socket = str(Path(self.folder.name) / "http.sock")
        self._settings = settings_of({"http": "127.0.0.1:0", "log": "none", **settings})
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway")
        self._thread.start()
        self._clients: list[httpx2.Client] = []
        self.gateway: Gateway
        self.server: Server
        try:
            self.run(self._start())
        except BaseException:
            self._end()
            raise

    async def _start(self) -> None:
        self.gateway = wire(self._settings, Path(self.folder.name), f"ipc://{self.kernel.socket}")
        try:
            self.server = Server(self.gateway, build(self.gateway))
            await self.server.start(address_of(f"unix:{self.socket}"))
            await self.gateway.sessions.own()
        except BaseException:
            await self._close()
            raise

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return self.server.address.port

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def key(self, *scopes: str, **how: Any) -> str:
        """The text of a new key; without scopes it may do everything but administer."""

        async def make() -> str:
            wanted = scopes or ("infer", "read", "load", "files", "tune", "manage")
            text, _ = self.gateway.keys.create(f"test-{os.urandom(4).hex()}", user="test", scopes=wanted, **how)
            return text

        return self.run(make())

    def client(self, key: str | None = None, **how: Any) -> httpx2.Client:
        """A client with that key, with a new one by default, or with none (`key=""`); closed at the end of the test."""
        text = self.key() if key is None else key
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        made = httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, **how)
        self._clients.append(made)
        return made

    def forget(self) -> None:
        """Close the clients and the sessions of keys."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        self.run(self._forget())

    async def _forget(self) -> None:
        while self.gateway.state.running:
            await asyncio.sleep(0.001)
        await self.gateway.sessions.close_idle(0.0)

    def close(self) -> None:
        """Stop it as SIGTERM does."""
        for client in self._clients:
            client.close()
        try:
            self.run(self._stop())
        finally:
            self._end()

    async def _stop(self) -> None:
        await self.server.stop(1.0)
        await self._close()

    async def _close(self) -> None:
        await self.gateway.sessions.close()
        self.gateway.store.close()
        self.gateway.keys.close()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
        self.folder.cleanup()


@contextlib.contextmanager
def serving(kernel: KernelProcess | Booted, **settings: Any) -> Iterator[GatewayServer]:
    """A gateway with settings of its own."""
    server = GatewayServer(kernel, **settings)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def kernel_for_gateway(config: str = "") -> Iterator[KernelProcess]:
    """A kernel with the models null (of 2048 tokens), other and org/third; its drivers are ready."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        for name in ("null", "other", "org/third"):
            write_model(Path(path) / "home/models" / name)
        with running(Path(path), config, drivers=ALL) as kernel:
            with kernel.client() as client:
                for driver in ("null0", "models", "files"):
                    client.await_driver("ready", driver)
            yield kernel

"""Listens, serves, and stops without cutting an answer short."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from email.utils import formatdate
from pathlib import Path

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from llmos.syscalls.errors import LlmosError
from llmos.userland.link import NoKernel

from ..native.leftovers import remove_leftovers
from ..native.past import Recorder
from .protocol import Connection
from .settings import Address, BadSettings, Settings, address_of
from .wiring import Gateway

_BACKLOG = 2048
_TICK_S = 1.0
_LEFTOVERS_S = 600.0
"""How often unfinished uploads are looked for."""
_LAST_S = 0.5
"""How long connections may take to close once their answers are out."""


class CannotListen(Exception):
    """The address is taken, or not one of this machine."""


class Server:
    """One listening socket and its connections, in the running loop."""

    def __init__(self, gateway: Gateway, app: ASGIApp) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._config = Config(
            app, loop="asyncio", lifespan="off", ws="none", log_config=None, access_log=False, proxy_headers=False,
            server_header=False, timeout_keep_alive=int(settings.idle_s), ssl_certfile=settings.certificate or None,
            ssl_keyfile=settings.private_key or None,
        )  # fmt: skip
        try:
            self._config.load()
        except OSError as error:
            raise BadSettings(f"the certificate {settings.certificate} or its key cannot be used: {error}") from None
        self._state = ServerState()
        self._listeners: list[asyncio.Server] = []
        self._paths: list[str] = []
        self._ticking: asyncio.Task[None] | None = None
        self._recorder = Recorder(gateway.sessions, gateway.past)
        self.address = address_of(settings.http)

    async def start(self, address: Address | None = None) -> None:
        """Listen at the address of the settings, and at another one where it is given.

        Raises:
            CannotListen: and why.
        """
        self.address = await self._listen(self.address)
        if address is not None:
            await self._listen(address)
        self._tick()
        self._recorder.start()
        self._ticking = asyncio.get_running_loop().create_task(self._keep_house())

    @property
    def url(self) -> str:
        """Where clients find it."""
        return self.address.url(self._config.is_ssl)

    async def _listen(self, address: Address) -> Address:
        loop = asyncio.get_running_loop()
        listening = bound(address)
        if address.path:
            self._paths.append(address.path)
        server = await loop.create_server(self._connection, sock=listening, ssl=self._config.ssl, backlog=_BACKLOG)
        self._listeners.append(server)
        if address.path:
            return address
        return Address(host=address.host, port=listening.getsockname()[1])

    def _connection(self) -> Connection:
        return Connection(self._gateway.settings, self._gateway.instruments, self._config, self._state)

    async def _keep_house(self) -> None:
        looked = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            self._tick()
            await self._gateway.sessions.sweep()
            if time.monotonic() - looked >= _LEFTOVERS_S:
                looked = time.monotonic()
                with contextlib.suppress(LlmosError, NoKernel):  # the next look finds what is left now
                    before = time.time() - self._gateway.settings.upload_idle_s
                    await remove_leftovers(await self._gateway.sessions.own(), before)

    def _tick(self) -> None:
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]

    async def stop(self, drain_s: float | None = None) -> None:
        """Take no new requests, let those that run end for `drain_s` seconds, then cancel the rest and close.

        While it drains it goes on listening: a client that comes is told to try again.
        """
        seconds = self._gateway.settings.drain_s if drain_s is None else drain_s
        self._gateway.state.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gateway.state.idle.wait()
        if self._ticking is not None:
            self._ticking.cancel()
        await self._recorder.stop()
        for listener in self._listeners:
            listener.close()
        for task in list(self._state.tasks):
            task.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                while self._state.connections or self._state.tasks:
                    await asyncio.sleep(0.005)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        for path in self._paths:
            Path(path).unlink(missing_ok=True)


def bound(address: Address) -> socket.socket:
    """A socket bound to the address. A socket file that nobody listens at is replaced.

    Raises:
        CannotListen: and why.
    """
    try:
        return _unix(address.path) if address.path else _tcp(address)
    except OSError as error:
        where = address.path or f"{address.host}:{address.port}"
        said = f"the gateway cannot listen at {where}: {error.strerror or error}; choose another address (--http)"
        raise CannotListen(said) from None


def _tcp(address: Address) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    # With the protocol named, asyncio sets TCP_NODELAY on what is accepted: without it each answer waits for an ACK.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
    except BaseException:
        made.close()
        raise
    return made


def _unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as probe:
        if Path(path).is_socket() and probe.connect_ex(path) != 0:
            Path(path).unlink()
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(path)
        Path(path).chmod(0o600)
    except BaseException:
        made.close()
        raise
    return made


def raise_limits(settings: Settings) -> None:
    """As many descriptors as there may be connections, if the system allows."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.connections + 2048
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))

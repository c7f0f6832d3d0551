"""Joins the running kernel, or starts a private one that ends with the program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from .aio import AsyncClient
from .async_objects import AsyncSystem
from .client import Client
from .objects import System
from .private import PrivateKernel

Models = str | Path | Iterable[str | Path] | None


def connect(address: str = "", *, program: str = "", tenant: str = "") -> System:
    """Join the running kernel: `with connect() as system: ...`.

    Args:
        address: `ipc://PATH` of its socket; by default that of this user's kernel (`LLMOS_RUNTIME_DIR`).
        program: what this program calls itself, for people to read.
        tenant: a part of this user's own share, for fairness and cache privacy.

    Raises:
        NoKernel: no kernel answers there.
        Denied: its policy does not let this user in.
    """
    return System(Client(address, program=program, tenant=tenant))


def boot(
    models: Models = None,
    drivers: Sequence[str] | None = None,
    config: str | Path | None = None,
    home: str | Path | None = None,
) -> System:
    """Start a private kernel: `with boot() as system: ...`. It is gone, with all it held, when the block ends.

    Args:
        models: a path, or several, to load before the block starts.
        drivers: names of the drivers to start; None starts all that are installed.
        config: a TOML configuration file.
        home: the folder of models and journal; None shares the user's (`LLMOS_HOME`, else ~/.llmos).

    Raises:
        BootFailed: the kernel did not start.
        LlmosError: a model could not be loaded.
    """
    kernel = PrivateKernel(drivers, config, home)
    try:
        system = System(Client(kernel.address, patience=0.0, last_words=kernel.last_words), kernel.stop)
    except BaseException:
        kernel.stop()
        raise
    try:
        for model in _several(models):
            system.load_model(model)
    except BaseException:
        system.close()
        raise
    return system


def _several(models: Models) -> Iterable[str | Path]:
    return () if models is None else [models] if isinstance(models, (str, Path)) else models


class Opening:
    """A system that is being opened: await it, or use it with `async with`."""

    def __init__(self, opening: Callable[[], Awaitable[AsyncSystem]]) -> None:
        self._opening = opening
        self._system: AsyncSystem | None = None

    def __await__(self) -> Generator[None, None, AsyncSystem]:
        return self._opening().__await__()

    async def __aenter__(self) -> AsyncSystem:
        self._system = await self._opening()
        return self._system

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._system is not None:
            await self._system.close()


def aconnect(address: str = "", *, program: str = "", tenant: str = "") -> Opening:
    """The async twin of `connect`: `async with aconnect() as system: ...`."""

    async def opening() -> AsyncSystem:
        return AsyncSystem(await AsyncClient.connect(address, program=program, tenant=tenant))

    return Opening(opening)


def aboot(
    models: Models = None,
    drivers: Sequence[str] | None = None,
    config: str | Path | None = None,
    home: str | Path | None = None,
) -> Opening:
    """The async twin of `boot`: `async with aboot() as system: ...`."""

    async def opening() -> AsyncSystem:
        kernel = await asyncio.to_thread(PrivateKernel, drivers, config, home)
        try:
            connecting = AsyncClient.connect(kernel.address, patience=0.0, last_words=kernel.last_words)
            system = AsyncSystem(await connecting, kernel.stop)
        except BaseException:
            kernel.stop()
            raise
        try:
            for model in _several(models):
                await system.load_model(model)
        except BaseException:
            await system.close()
            raise
        return system

    return Opening(opening)

"""One session with the kernel for each key: fairness, quotas and the salt of the prefix cache follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import zmq

from llmos.userland.aio import AsyncClient
from llmos.userland.async_objects import AsyncModel, AsyncSystem
from llmos.userland.link import NoKernel

from .caller import Caller
from .errors import no_kernel

PROGRAM = "gateway"
PATIENCE_S = 1.0
"""How long requests wait for a kernel that is away; then their clients are told to try again."""


@dataclass
class Entry:
    """An open session."""

    system: AsyncSystem
    session: str
    """Its id when limits were last set: the kernel that comes after another knows none."""
    used: float
    models: dict[str, AsyncModel] = field(default_factory=dict)
    """Models by the name that requests use."""


class Sessions:
    """The sessions of all keys, and the gateway's own, which loads models and reads metrics.

    Args:
        address: the kernel's socket; by default that of this user's kernel.
        idle_s: a session is closed so long after its last use.
        clock: seconds.
    """

    def __init__(self, address: str = "", idle_s: float = 60.0, clock: Callable[[], float] = monotonic) -> None:
        self._address = address
        self._idle_s = idle_s
        self._clock = clock
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._entries: dict[str, Entry] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._running: dict[str, int] = {}

    async def system(self, caller: Caller) -> AsyncSystem:
        """The session of a key; that of a key with the scope `admin` sees everything.

        Raises:
            Unavailable: no kernel answers.
        """
        return (await self.entry(caller)).system

    async def own(self) -> AsyncSystem:
        """The gateway's own session, without a tenant.

        Raises:
            Unavailable: no kernel answers.
        """
        return (await self._entry("", "", 0)).system

    async def entry(self, caller: Caller) -> Entry:
        """The session of a key, with the models it has open."""
        tenant = "" if caller.admin else caller.tenant
        return await self._entry(tenant, tenant, caller.limits.tokens_per_minute)

    async def _entry(self, name: str, tenant: str, tokens_per_minute: int) -> Entry:
        found = self._entries.get(name)
        if found is not None and self._is_good(found):
            found.used = self._clock()
            return found
        async with self._opening.setdefault(name, asyncio.Lock()):
            found = self._entries.get(name)
            if found is None or not self._is_good(found):
                if found is not None:
                    await self._drop(name)
                found = await self._open(tenant, tokens_per_minute)
                self._entries[name] = found
            return found

    def _is_good(self, entry: Entry) -> bool:
        client = entry.system.client
        return not client.ended and client.welcome.session == entry.session

    async def _open(self, tenant: str, tokens_per_minute: int) -> Entry:
        try:
            client = await AsyncClient.connect(
                self._address, program=PROGRAM, tenant=tenant, patience=PATIENCE_S, context=self._context
            )
        except NoKernel:
            raise no_kernel() from None
        system = AsyncSystem(client)
        if tokens_per_minute:
            limits: dict[str, Any] = {"tokens_per_minute": tokens_per_minute}
            await system.control(client.welcome.handle, "limit", **limits)
        return Entry(system, client.welcome.session, self._clock())

    async def _drop(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            await entry.system.close()

    # ---- the end of what nobody uses

    def entered(self, caller: Caller) -> None:
        """A request of the key has begun."""
        name = "" if caller.admin else caller.tenant
        self._running[name] = self._running.get(name, 0) + 1

    def left(self, caller: Caller) -> None:
        """A request of the key has ended."""
        name = "" if caller.admin else caller.tenant
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]
            if name in self._entries:
                self._entries[name].used = self._clock()

    async def sweep(self) -> None:
        """Close the sessions of keys that have not asked for a while."""
        await self.close_idle(self._idle_s)

    async def close_idle(self, seconds: float) -> None:
        """Close the sessions of keys that have asked for nothing for so long."""
        now = self._clock()
        for name, entry in list(self._entries.items()):
            if name and name not in self._running and now - entry.used >= seconds:
                self._opening.pop(name, None)
                await self._drop(name)

    async def close(self) -> None:
        """End all sessions."""
        for name in list(self._entries):
            await self._drop(name)
        self._context.destroy(linger=0)

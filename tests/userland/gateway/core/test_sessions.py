"""One session for each key: opened once, closed when nobody asks, opened again after the kernel."""

from __future__ import annotations

import asyncio

import pytest
from gateway_server import GatewayServer

from llmos.syscalls.errors import Unavailable
from llmos.userland.gateway.core.caller import Caller, KeyLimits
from llmos.userland.gateway.core.sessions import Sessions


def caller(name: str, *scopes: str, tokens: int = 0) -> Caller:
    return Caller(name, "u", f"key-{name}", frozenset(scopes or {"infer"}), limits=KeyLimits(tokens_per_minute=tokens))


def test_a_key_has_one_session_and_an_admin_that_of_the_gateway(gateway: GatewayServer) -> None:
    sessions = gateway.gateway.sessions

    async def check() -> None:
        many = await asyncio.gather(*(sessions.system(caller("a")) for _ in range(5)))
        assert len({id(system) for system in many}) == 1
        other = await sessions.system(caller("b", tokens=7))
        assert other is not many[0]
        info = (await other.sessions())[0]
        assert info.fields["tenant"] == "key-b" and info.fields["limits"]["tokens_per_minute"] == 7
        assert await sessions.system(caller("c", "admin")) is await sessions.own()

    gateway.run(check())


def test_one_that_is_not_used_is_closed(gateway: GatewayServer) -> None:
    sessions = gateway.gateway.sessions

    async def check() -> None:
        used = caller("used")
        kept = await sessions.system(used)
        sessions.entered(used)
        idle = await sessions.system(caller("idle"))
        await sessions.close_idle(0.0)
        assert idle.client.ended and not kept.client.ended
        sessions.left(used)
        await sessions.sweep()
        assert not kept.client.ended
        await sessions.close_idle(0.0)
        assert kept.client.ended
        again = await sessions.system(used)
        assert again is not kept and not again.client.ended

    gateway.run(check())


async def test_without_a_kernel_it_is_unavailable(tmp_path: object) -> None:
    sessions = Sessions(f"ipc://{tmp_path}/no.sock")
    with pytest.raises(Unavailable) as raised:
        await sessions.own()
    assert raised.value.retry_after_ms == 1000
    await sessions.close()

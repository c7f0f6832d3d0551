"""Work side by side; the rest is seen through the routes."""

from __future__ import annotations

import asyncio

import pytest

from llmos.syscalls.errors import Busy
from llmos.userland.gateway.openai.orders import together


async def test_results_keep_their_order() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return number

    assert await together(work(number) for number in range(5)) == [0, 1, 2, 3, 4]


async def test_when_one_fails_the_others_are_cancelled() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def fails() -> None:
        await asyncio.sleep(0)
        raise Busy("no")

    with pytest.raises(Busy):
        await together([waits(), fails()])
    for _ in range(3):
        await asyncio.sleep(0)
    assert ended == ["cancelled"]

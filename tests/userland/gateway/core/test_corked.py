"""What is written in one turn of the loop is sent in one piece."""

from __future__ import annotations

import asyncio

from llmos.userland.gateway.core.corked import Corked


class Written(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []

    def write(self, data: object) -> None:
        self.seen.append(data)

    def write_eof(self) -> None:
        self.seen.append("eof")

    def close(self) -> None:
        self.seen.append("close")

    def is_closing(self) -> bool:
        return "close" in self.seen


async def test_one_turn_one_piece() -> None:
    inner = Written()
    corked = Corked(inner, asyncio.get_running_loop())
    corked.write(b"head ")
    corked.write(b"body")
    assert inner.seen == []
    await asyncio.sleep(0)
    corked.write(b"more")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert inner.seen == [b"head body", b"more"] and not corked.is_closing()


async def test_nothing_is_lost_at_the_end() -> None:
    inner = Written()
    corked = Corked(inner, asyncio.get_running_loop())
    corked.write(b"bye")
    corked.write_eof()
    corked.write(b"!")
    corked.close()
    await asyncio.sleep(0)
    assert inner.seen == [b"bye", "eof", b"!", "close"] and corked.is_closing()

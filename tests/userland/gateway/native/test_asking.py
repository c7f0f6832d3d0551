"""Calls in the session of a key: what a session holds, and which events it sees."""

from __future__ import annotations

from typing import Any, cast

import pytest

from llmos.syscalls.errors import NotFound
from llmos.syscalls.types import Done, Event, Handle, Kind, Lease, ObjectInfo
from llmos.userland.aio import AsyncClient
from llmos.userland.async_objects import AsyncSystem
from llmos.userland.gateway.core.caller import Caller
from llmos.userland.gateway.native.asking import Held, Visible, found, known
from llmos.userland.gateway.native.derive import Wanted

ANNA = Caller("aaaaaaaa", "anna", "key-aaaaaaaa", frozenset({"read"}))


class Client:
    """Only somebody to hold something."""


class System:
    """Lists objects, as `AsyncSystem.objects`."""

    handle = Handle(1)

    def __init__(self, *infos: ObjectInfo) -> None:
        self.infos = list(infos)
        self.asked = 0

    async def objects(self, kind: Kind, prefix: str = "") -> list[ObjectInfo]:
        self.asked += 1
        return [info for info in self.infos if info.kind == kind]


def info(kind: Kind, id: str, name: str, **fields: Any) -> ObjectInfo:
    return ObjectInfo(id=id, kind=kind.value, name=name, state="open", handle=Handle(9), fields=fields)


def test_what_a_session_holds_is_given_back_once() -> None:
    held, one, other = Held(), cast(AsyncClient, Client()), cast(AsyncClient, Client())
    held.keep(one, Lease(handle=Handle(5), id="l-1", device="d", bytes=1, expires=None, share=False))
    held.keep(one, Done())
    with pytest.raises(NotFound, match="does not hold"):
        held.take(other, "l-1")
    assert held.take(one, "l-1") == 5
    with pytest.raises(NotFound):
        held.take(one, "l-1")


async def test_a_name_alone_is_no_id() -> None:
    system = cast(AsyncSystem, System(info(Kind.MODEL, "m-1", "tiny", path="/models/tiny"), info(Kind.TASK, "t-1", "")))

    async def find(kind: Kind | None, name: str) -> str:
        return (await found(ANNA, system, Wanted(cast(Any, None), name, kind, name))).id

    assert await find(None, "m-1") == "m-1" and await find(None, "t-1") == "t-1"
    assert await find(Kind.MODEL, "tiny") == await find(Kind.MODEL, "/models/tiny") == "m-1"
    assert await find(Kind.SYSTEM, "system") == "system"
    for kind, name in ((None, "tiny"), (Kind.TASK, "m-1"), (Kind.MODEL, "t-1")):
        with pytest.raises(NotFound):
            await find(kind, name)


async def test_names_of_what_is_everybodys_and_ids_of_what_is_ones_own_are_known() -> None:
    system = cast(AsyncSystem, System(info(Kind.MODEL, "m-1", "tiny"), info(Kind.TASK, "t-1", "named")))
    assert await known(ANNA, system) == {"m-1", "tiny", "t-1"}


async def test_an_object_that_appears_is_looked_up_once() -> None:
    stand_in = System(info(Kind.MODEL, "m-1", "tiny"))
    visible = Visible(ANNA, cast(AsyncSystem, stand_in))
    await visible.begin()
    before = stand_in.asked
    assert await visible.sees(Event(kind="model", about="m-1")) and stand_in.asked == before
    for _ in range(3):
        assert not await visible.sees(Event(kind="session", about="s-of-another"))
    assert stand_in.asked > before
    before = stand_in.asked
    stand_in.infos.append(info(Kind.TASK, "t-1", "mine"))
    assert await visible.sees(Event(kind="task", about="t-1")) and stand_in.asked > before
    stand_in.infos.clear()  # its end is told too
    assert await visible.sees(Event(kind="task", about="t-1"))

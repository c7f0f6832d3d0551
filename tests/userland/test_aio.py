"""What only the async client has: tasks that are cancelled, many at once. The rest is in test_client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmos.syscalls import calls
from llmos.syscalls.errors import PeerGone
from llmos.syscalls.types import Handle, ObjectInfo
from llmos.userland.aio import AsyncClient

INFO = ObjectInfo(id="system", kind="system", name="system", state="running")


async def arrived(fake: Any) -> Any:
    return await asyncio.to_thread(fake.calls.get)


async def test_many_calls_are_in_flight_at_once(fake: Any) -> None:
    async with await AsyncClient.connect(fake.address) as client:
        tasks = [asyncio.create_task(client.call(calls.StatPath(path=f"/{n}"))) for n in range(50)]
        for request in reversed([await arrived(fake) for _ in tasks]):
            request.reply({"path": request.body["path"], "kind": "file"})
        assert [entry.path for entry in await asyncio.gather(*tasks)] == [f"/{n}" for n in range(50)]


async def test_cancelling_a_task_cancels_its_request_and_waits_for_the_end(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmos.userland.aio._AFTER_CANCEL", 1e6)
    fake.on("cancel", lambda request: request.reply({"id": "t", "state": "cancelled"}))
    fake.on("stat_object", lambda request: request.reply(INFO))
    async with await AsyncClient.connect(fake.address) as client:
        task = asyncio.create_task(client.call(calls.WaitTask(task=Handle(9))))
        request = await arrived(fake)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert fake.cancels.get() == request.number
        assert not client._core.pending
        assert await client.call(calls.StatObject(handle=Handle(2))) == INFO


async def test_a_timeout_of_asyncio_works_on_calls(fake: Any) -> None:
    fake.on("cancel", lambda request: request.reply({"id": "t", "state": "cancelled"}))
    async with await AsyncClient.connect(fake.address) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.call(calls.WaitTask(task=Handle(9)))


async def test_all_tasks_learn_that_the_kernel_is_gone(fake: Any) -> None:
    client = await AsyncClient.connect(fake.address, patience=0.1)
    tasks = [asyncio.create_task(client.call(calls.WaitTask(task=Handle(9)))) for _ in range(4)]
    for _ in tasks:
        await arrived(fake)
    await asyncio.to_thread(fake.stop)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, PeerGone) for result in results)
    await client.close()


async def test_closing_ends_what_other_tasks_wait_for(fake: Any) -> None:
    client = await AsyncClient.connect(fake.address)
    task = asyncio.create_task(client.call(calls.WaitTask(task=Handle(9))))
    await arrived(fake)
    await client.close()
    with pytest.raises(PeerGone, match="closed"):
        await task

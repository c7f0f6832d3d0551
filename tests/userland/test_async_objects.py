"""What only an event loop shows; what both faces share is in test_objects."""

from __future__ import annotations

import asyncio
from typing import Any

from llmos.userland.aio import AsyncClient
from llmos.userland.async_objects import AsyncSystem


async def test_many_requests_are_in_flight_at_once_and_close_in_any_order(kernel: Any) -> None:
    async with AsyncSystem(await AsyncClient.connect(kernel.address)) as system:
        async with await system.load_model("/models/null", device="null0") as model:
            answers = await asyncio.gather(*(model.infer(f"number {n}", max_tokens=12) for n in range(20)))
            assert [answer.usage.prompt_tokens > 0 for answer in answers] == [True] * 20
            async with await model.infer_stream("hello", max_tokens=5) as stream:
                assert "".join([chunk.text async for chunk in stream]) == (await stream.result()).text
        await (await system.model("null")).unload()


async def test_closing_runs_what_was_asked_for(kernel: Any) -> None:
    ended = []
    system = AsyncSystem(await AsyncClient.connect(kernel.address), lambda: ended.append(True))
    await system.close()
    assert ended == [True]

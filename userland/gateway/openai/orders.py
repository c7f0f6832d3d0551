"""One order to a model, run whole or as a stream, in the session of the key that asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request

from llmos.syscalls.calls import Infer, InferStream
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Chunk, Inference, Input, ModelInfo, Sampling
from llmos.userland.aio import AsyncStreamReader
from llmos.userland.async_objects import AsyncModel

from ..core.caller import caller_of, counts_load, gateway_of
from ..core.durations import seconds_of

CREDIT = 64
"""Chunks that may be under way before the client has taken them."""

T = TypeVar("T")

Reader = AsyncStreamReader[Chunk, Inference]
Choose = Callable[[ModelInfo], Sampling]


@dataclass(frozen=True)
class Order:
    """What to run.

    Args:
        model: the name that the request uses.
        content: the input.
        sampling: made once the model is known; None for tasks without.
        task, options: of the call.
        wanted_task: the model must do it.
        chat: the model must have a template for chats.
        priority: as asked for; what the key may have is decided here.
        keep_alive: as asked for: how long the model stays awake after the request.
    """

    model: str
    content: Input
    sampling: Choose | None = None
    task: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    wanted_task: str = ""
    chat: bool = False
    priority: int = 0
    keep_alive: float | str | None = None


@dataclass
class Running:
    """A stream that has begun: its first chunk is here, so that what refuses it has been told."""

    reader: Reader
    first: Chunk | None
    model: AsyncModel
    close: Callable[[], Awaitable[None]]


async def run(request: Request, order: Order) -> Inference:
    """Run the order to its end."""

    keep = kept(request, order.keep_alive)
    gateway = gateway_of(request)

    async def work(model: AsyncModel) -> tuple[AsyncModel, Inference]:
        return model, await model.client.call(Infer(**_arguments(request, order, model)))

    model, inference = await gateway.models.use(
        caller_of(request), order.model, work, keep_alive=keep, wanted_task=order.wanted_task,
        on_load=counts_load(request),
    )  # fmt: skip
    told(request, inference)
    if keep is not None:
        await gateway.models.keep_alive(model, keep)
    return inference


async def start(request: Request, order: Order) -> Running:
    """Begin a stream and wait for its first chunk.

    Raises:
        LlmosError: the request was refused, or failed before it gave anything.
    """
    keep = kept(request, order.keep_alive)
    gateway = gateway_of(request)

    async def work(model: AsyncModel) -> Running:
        call = InferStream(**_arguments(request, order, model), credit=CREDIT)
        reader = await model.client.stream(call)
        try:
            first = await anext(reader, None)
        except asyncio.CancelledError:
            await asyncio.shield(reader.close())
            raise

        async def close() -> None:
            await reader.close()
            if keep is not None:
                await gateway.models.keep_alive(model, keep)

        return Running(reader, first, model, close)

    return await gateway.models.use(
        caller_of(request), order.model, work, keep_alive=keep, wanted_task=order.wanted_task,
        on_load=counts_load(request),
    )  # fmt: skip


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, side by side; when one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def kept(request: Request, wanted: float | str | None) -> float | None:
    """How long the model is to stay awake; None leaves it as it is. A model is shared: only keys with the scope `load`
    have a say in it, for others the field is named as ignored.

    Raises:
        BadArgument: it is no duration.
    """
    seconds = seconds_of(wanted)
    if seconds is None or caller_of(request).has("load"):
        return seconds
    request.scope["state"].setdefault("ignored", []).append("keep_alive")
    return None


def told(request: Request, inference: Inference) -> None:
    """What the log, the header, the metrics and the traces say of the kernel's part."""
    state = request.scope["state"]
    state["inference"] = inference
    state["kernel_request"] = inference.id
    state["kernel_s"] = inference.timing.total / 1e9


def deadline(request: Request) -> int:
    """When the request must have ended, monotonic nanoseconds."""
    return time.monotonic_ns() + int(gateway_of(request).settings.request_s * 1e9)


def _arguments(request: Request, order: Order, model: AsyncModel) -> dict[str, Any]:
    if order.chat and not model.info.chat:
        text = f"the model {order.model!r} has no chat template; send its text to /v1/completions"
        raise BadArgument(text, name="model", got=order.model, want="a model with a chat template")
    request.scope["state"]["model"] = order.model
    arguments: dict[str, Any] = {
        "model": model.handle,
        "input": order.content,
        "task": order.task,
        "options": order.options,
        "priority": caller_of(request).priority(order.priority),
        "deadline": deadline(request),
    }
    if order.sampling is not None:
        arguments["sampling"] = order.sampling(model.info)
    return arguments

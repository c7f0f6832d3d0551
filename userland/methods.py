"""Turns flows into methods: `infer = blocking(flows.infer)` in a sync class, `awaitable(flows.infer)` in an async one.

Arguments, defaults, documentation and types are those of the flow, so the two faces cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from llmos.syscalls.spec import Call, Stream

from .flow import Flow

if TYPE_CHECKING:
    from .aio import AsyncClient, AsyncStreamReader
    from .client import Client
    from .reader import StreamReader

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F")
Made = TypeVar("Made", covariant=True)
Answer = TypeVar("Answer", contravariant=True)


class Make(Protocol[Answer, Made]):
    """A class whose objects are made from a client and the answer of a call."""

    def __call__(self, client: Any, info: Answer, /) -> Made: ...


def blocking(flow: Callable[Concatenate[Any, P], Flow[R]]) -> Callable[Concatenate[Any, P], R]:
    """A method that runs the flow to its end."""

    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        client: Client = self.client
        _renew(self, client)
        return client.run(flow(self, *args, **kwargs))

    return update_wrapper(method, flow)


def blocking_new(
    flow: Callable[Concatenate[Any, P], Flow[R]], make: Make[R, Made]
) -> Callable[Concatenate[Any, P], Made]:
    """A method that runs the flow and makes an object of its result."""

    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Made:
        client: Client = self.client
        _renew(self, client)
        return make(client, client.run(flow(self, *args, **kwargs)))

    return update_wrapper(method, flow)


def blocking_stream(
    flow: Callable[Concatenate[Any, P], Flow[Call[Stream[T, F]]]],
) -> Callable[Concatenate[Any, P], StreamReader[T, F]]:
    """A method that starts the streaming call which the flow prepares."""

    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> StreamReader[T, F]:
        client: Client = self.client
        _renew(self, client)
        return client.stream(client.run(flow(self, *args, **kwargs)))

    return update_wrapper(method, flow)


def _renew(self: Any, client: Client) -> None:
    if client.ended and self.renews:
        client.renew()


def awaitable(flow: Callable[Concatenate[Any, P], Flow[R]]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """The async twin of `blocking`."""

    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        client: AsyncClient = self.client
        await _renew_async(self, client)
        return await client.run(flow(self, *args, **kwargs))

    return update_wrapper(method, flow)


def awaitable_new(
    flow: Callable[Concatenate[Any, P], Flow[R]], make: Make[R, Made]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, Made]]:
    """The async twin of `blocking_new`."""

    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Made:
        client: AsyncClient = self.client
        await _renew_async(self, client)
        return make(client, await client.run(flow(self, *args, **kwargs)))

    return update_wrapper(method, flow)


def awaitable_stream(
    flow: Callable[Concatenate[Any, P], Flow[Call[Stream[T, F]]]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncStreamReader[T, F]]]:
    """The async twin of `blocking_stream`."""

    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStreamReader[T, F]:
        client: AsyncClient = self.client
        await _renew_async(self, client)
        return await client.stream(await client.run(flow(self, *args, **kwargs)))

    return update_wrapper(method, flow)


async def _renew_async(self: Any, client: AsyncClient) -> None:
    if client.ended and self.renews:
        await client.renew()

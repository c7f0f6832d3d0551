"""`POST /v1/completions`: text in, text out, without a chat template."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.syscalls.types import Choice, Inference, Input, ModelInfo, Sampling, Text, Tokens, Usage

from ..core.body import json_body
from ..core.errors import FAILURES
from ..core.respond import EventStream, joined, json_response, sse_error
from .bodies import CompletionBody, StreamOptions
from .chosen import sampling_of
from .orders import Order, Running, run, start, together, told
from .writing import CompletionWriter

MOST_PROMPTS = 128
DEFAULT_TOKENS = 16
"""What the API gives who says no `max_tokens`."""


async def completions(request: Request) -> ASGIApp:
    """Go on with one prompt or several."""
    body = await json_body(request, CompletionBody)
    if body.suffix:
        raise NotSupported("suffix: text in the middle is not offered", why="no task fills in the middle")
    prompts = prompts_of(body.prompt)
    usage = (body.stream_options or StreamOptions()).include_usage
    writer = CompletionWriter(body.model, usage=usage, logprobs=body.logprobs)
    orders = [_order(body, prompt) for prompt in prompts]
    if body.stream:
        if len(orders) > 1:
            raise NotSupported("several prompts in one stream are not offered; send one", why="one prompt per stream")
        running = await start(request, orders[0])
        before = _echo(body, prompts[0])
        return EventStream(_events(request, running, writer, body.n or 1, before), on_close=running.close)
    results = await together(run(request, order) for order in orders)
    choices: list[tuple[Choice, str]] = [
        (choice, _echo(body, prompt))
        for prompt, inference in zip(prompts, results, strict=True)
        for choice in inference.choices
    ]
    return json_response(writer.whole(choices, _sum(results)))


def prompts_of(given: str | list[Any]) -> list[Input]:
    """One text, several, token ids, or several lists of them. Raises BadArgument."""
    if isinstance(given, str):
        return [Text(text=given)]
    if given and all(isinstance(item, int) and not isinstance(item, bool) for item in given):
        return [Tokens(ids=given)]
    if not given or len(given) > MOST_PROMPTS:
        raise BadArgument(f"there are {len(given)} prompts; 1 to {MOST_PROMPTS} are taken", name="prompt")
    try:
        return [
            Text(text=item) if isinstance(item, str) else Tokens(ids=msgspec.convert(item, list[int])) for item in given
        ]
    except msgspec.ValidationError:
        want = "a text, a list of texts, or token ids"
        raise BadArgument(f"prompt is no text; expected {want}", name="prompt", want=want) from None


def _order(body: CompletionBody, prompt: Input) -> Order:
    return Order(
        model=body.model, content=prompt, sampling=partial(_sampling, body), priority=body.priority,
        keep_alive=body.keep_alive,
    )  # fmt: skip


def _sampling(body: CompletionBody, info: ModelInfo) -> Sampling:
    most = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    return sampling_of(body, info, max_tokens=most, logprobs=body.logprobs, best_of=body.best_of)


def _echo(body: CompletionBody, prompt: Input) -> str:
    """The prompt before the answer, if it is wanted and a text."""
    return prompt.text if body.echo and isinstance(prompt, Text) else ""


def _sum(results: list[Inference]) -> Usage:
    return Usage(
        prompt_tokens=sum(each.usage.prompt_tokens for each in results),
        cached_tokens=sum(each.usage.cached_tokens for each in results),
        new_tokens=sum(each.usage.new_tokens for each in results),
    )


async def _events(
    request: Request, running: Running, writer: CompletionWriter, choices: int, before: str
) -> AsyncIterator[bytes]:
    reader, first = running.reader, running.first
    try:
        head = writer.before(choices, before) + (writer.text(first) if first is not None else b"")
        if head:
            yield head
        async for piece in joined(reader, writer.text):
            yield piece
        inference = await reader.result()
        told(request, inference)
        yield writer.end(inference)
    except FAILURES as error:
        yield sse_error(error)

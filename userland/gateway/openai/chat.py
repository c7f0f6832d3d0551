"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from starlette.requests import Request
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Chat, ModelInfo, Sampling

from ..core.body import json_body
from ..core.errors import FAILURES
from ..core.respond import EventStream, joined, json_response, sse_error
from .bodies import ChatBody, StreamOptions
from .chosen import sampling_of
from .messages import chat_input, check_answers
from .orders import Order, Running, run, start, told
from .tools import Toolbox, toolbox
from .writing import ChatWriter

NO_OPTIONS = StreamOptions()


async def chat_completions(request: Request) -> ASGIApp:
    """Answer a chat, whole or as a stream."""
    body = await json_body(request, ChatBody)
    if body.top_logprobs is not None and not body.logprobs:
        raise BadArgument("top_logprobs needs logprobs: true", name="top_logprobs", got=str(body.top_logprobs))
    tools = toolbox(body.tools, body.tool_choice)
    check_answers(body.messages)
    content = chat_input(body.messages, tools.shown, body.chat_template_kwargs)
    order = Order(
        model=body.model,
        content=content,
        sampling=partial(_sampling, body, tools),
        chat=isinstance(content, Chat),
        priority=body.priority,
        keep_alive=body.keep_alive,
    )
    usage = (body.stream_options or NO_OPTIONS).include_usage
    writer = ChatWriter(body.model, usage=usage, top=body.top_logprobs or 0)
    if body.stream:
        running = await start(request, order)
        return EventStream(_events(request, running, writer, tools, body.n or 1), on_close=running.close)
    inference = await run(request, order)
    read = [tools.read(choice.text, choice.reason) for choice in inference.choices]
    return json_response(writer.whole(inference, [said.message() for said in read], [said.finish for said in read]))


def _sampling(body: ChatBody, tools: Toolbox, info: ModelInfo) -> Sampling:
    most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return sampling_of(body, info, max_tokens=most, logprobs=logprobs, grammar=tools.grammar)


async def _events(
    request: Request, running: Running, writer: ChatWriter, tools: Toolbox, choices: int
) -> AsyncIterator[bytes]:
    reader, first = running.reader, running.first
    stream = tools.stream(writer, choices)
    try:
        yield writer.role(choices) + (stream.text(first) if first is not None else b"")
        async for piece in joined(reader, stream.text):
            yield piece
        inference = await reader.result()
        told(request, inference)
        yield stream.end(inference)
    except FAILURES as error:
        yield sse_error(error)

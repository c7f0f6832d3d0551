"""`POST /api/chat` and `POST /api/generate`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.syscalls.types import Chat, Chunk, Grammar, Input, ModelInfo, Sampling, Text

from ..core.body import json_body
from ..core.caller import caller_of, counts_load, gateway_of
from ..core.errors import FAILURES
from ..core.respond import LINES, EventStream, joined, json_response
from ..openai.chosen import MOST_TOKENS, stops
from ..openai.messages import chat_input
from ..openai.orders import Order, Running, kept, run, start, told
from ..openai.tools import Toolbox, may_be_call, toolbox
from .bodies import NO_OPTIONS, Asked, ChatBody, GenerateBody, Message, streams
from .writing import Writer, error_line, line

_SEEDS = (1 << 63) - 1


async def chat(request: Request) -> ASGIApp:
    """Answer a chat; without messages, load the model or let it sleep."""
    body, began = await json_body(request, ChatBody), time.perf_counter_ns()
    tools = toolbox(body.tools, None)
    content = None
    if body.messages:
        content = chat_input([_message(message) for message in body.messages], tools.shown)
    return await _answer(request, body, content, tools, began, chat=True)


async def generate(request: Request) -> ASGIApp:
    """Go on with a prompt, through the chat template where the model has one and `raw` is not set."""
    body, began = await json_body(request, GenerateBody), time.perf_counter_ns()
    if body.suffix:
        raise NotSupported("suffix: text in the middle is not offered", why="no task fills in the middle")
    content = None
    if body.prompt or body.images:
        content = await _prompt(request, body)
    return await _answer(request, body, content, toolbox(None, None), began, chat=False)


async def _prompt(request: Request, body: GenerateBody) -> Input:
    keep = kept(request, body.keep_alive)
    model = await gateway_of(request).models.get(
        caller_of(request), body.wanted, keep_alive=keep, on_load=counts_load(request)
    )
    if body.raw or not (model.info.chat or body.images):
        return Text(text=body.prompt)
    messages = [Message(role="system", content=body.system)] if body.system else []
    messages.append(Message(role="user", content=body.prompt, images=body.images))
    return chat_input([_message(message) for message in messages])


async def _answer(
    request: Request, body: Asked, content: Input | None, tools: Toolbox, began: int, *, chat: bool
) -> ASGIApp:
    if not body.wanted:
        raise BadArgument("the body names no model", name="model", want="the name of a model")
    keep = kept(request, body.keep_alive)
    if content is None:
        return json_response(await _load(request, body, keep, chat=chat))
    await gateway_of(request).models.get(caller_of(request), body.wanted, keep_alive=keep, on_load=counts_load(request))
    writer = Writer(body.model or body.name, chat=chat, load_ns=time.perf_counter_ns() - began)
    order = Order(
        model=body.wanted, content=content, sampling=partial(sampling_of, body, tools), chat=isinstance(content, Chat),
        keep_alive=body.keep_alive,
    )  # fmt: skip
    if streams(body.stream):
        running = await start(request, order)
        lines = _lines(request, running, writer, tools)
        return EventStream(lines, media_type=LINES, on_close=running.close)
    inference = await run(request, order)
    choice = inference.choices[0]
    return json_response(writer.end(inference, tools.read(choice.text, choice.reason)))


async def _load(request: Request, body: Asked, keep: float | None, *, chat: bool) -> dict[str, Any]:
    """An empty request loads a model; with `keep_alive` 0 it lets a loaded one sleep."""
    models, caller, began = gateway_of(request).models, caller_of(request), time.perf_counter_ns()
    if keep == 0 and await models.state(caller, body.wanted) is None:
        return Writer(body.wanted, chat=chat, load_ns=0).nothing("unload")
    model = await models.get(caller, body.wanted, keep_alive=keep)
    if keep is not None:
        await models.keep_alive(model, keep)
    writer = Writer(body.model or body.name, chat=chat, load_ns=time.perf_counter_ns() - began)
    return writer.nothing("unload" if keep == 0 else "load")


async def _lines(request: Request, running: Running, writer: Writer, tools: Toolbox) -> AsyncIterator[bytes]:
    reader, first = running.reader, running.first
    held = Held(writer, tools) if tools.names else None
    text = writer.text if held is None else held.text
    try:
        if first is not None and (piece := text(first)):
            yield piece
        async for piece in joined(reader, text):
            if piece:
                yield piece
        inference = await reader.result()
        told(request, inference)
        yield (b"" if held is None else held.end()) + line(writer.end(inference))
    except FAILURES as error:
        yield error_line(error)


class Held:
    """A stream whose model may call tools: what could be the beginning of a call is held back until that is known."""

    def __init__(self, writer: Writer, tools: Toolbox) -> None:
        self._writer = writer
        self._tools = tools
        self._held = ""
        self._free = False

    def text(self, chunk: Chunk) -> bytes:
        """What of a chunk may be told now."""
        if self._free:
            return self._writer.text(chunk)
        self._held += chunk.text
        if may_be_call(self._held):
            return b""
        self._free, text, self._held = True, self._held, ""
        return self._writer.text(msgspec.structs.replace(chunk, text=text))

    def end(self) -> bytes:
        """What was held back."""
        said = self._tools.read(self._held, "stop")
        return self._writer.said(said) if said.text or said.calls else b""


def sampling_of(body: Asked, tools: Toolbox, info: ModelInfo) -> Sampling:
    """How tokens are chosen: `options`, with Ollama's defaults."""
    options = body.options or NO_OPTIONS
    most = options.num_predict
    if most is None or most < 0:
        most = min(MOST_TOKENS, info.context or MOST_TOKENS)
    return Sampling(
        max_tokens=most,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        seed=None if options.seed is None or options.seed < 0 else options.seed & _SEEDS,
        stop=stops(options.stop),
        grammar=grammar_of(body.format) or tools.grammar,
    )


def grammar_of(form: str | dict[str, Any] | None) -> Grammar | None:
    """What the answer must look like: `json`, or a JSON schema. Raises BadArgument."""
    if not form:
        return None
    if isinstance(form, dict):
        return Grammar(json_schema=form)
    if form == "json":
        return Grammar(json_schema={"type": "object"})
    want = "json, or a JSON schema"
    raise BadArgument(f"format is {form[:40]!r}; expected {want}", name="format", got=form[:40], want=want)


def _message(message: Message) -> dict[str, Any]:
    """A message in the form of the OpenAI API, which the chat template takes."""
    made: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.images:
        pictures = [{"type": "image_url", "image_url": {"url": data}} for data in message.images]
        made["content"] = [*([{"type": "text", "text": message.content}] if message.content else []), *pictures]
    if message.tool_calls:
        made["tool_calls"] = message.tool_calls
    if message.tool_name:
        made["name"] = message.tool_name
    return made

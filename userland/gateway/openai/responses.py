"""`POST /v1/responses`: text and function tools; responses are kept for `previous_response_id`."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.syscalls.types import Chat, Grammar, ModelInfo, Sampling

from ..core.body import json_body
from ..core.caller import caller_of, gateway_of
from ..core.errors import HttpError
from ..core.respond import EventStream, json_response
from ..core.store import StoredResponse
from .bodies import ChatBody
from .chosen import response_grammar, sampling_of
from .messages import chat_input
from .orders import Order, run, start
from .response_items import messages_of
from .response_writing import ResponseWriter, stream_events
from .tools import Toolbox, toolbox


class ResponseBody(Struct, frozen=True, kw_only=True):
    """The body, as far as it is served."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=0)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    background: bool | None = None
    priority: int = 0
    keep_alive: float | str | None = None


async def create_response(request: Request) -> ASGIApp:
    """Answer, whole or as a stream of events."""
    body = await json_body(request, ResponseBody)
    if body.background:
        raise NotSupported("background: responses are answered while one waits", why="no background responses")
    tools = toolbox(function_tools(body.tools), body.tool_choice)
    messages = [*_earlier(request, body.previous_response_id), *messages_of(body.input)]
    if not messages:
        raise BadArgument("there is no input", name="input", want="a text or a list of items")
    shown = [{"role": "system", "content": body.instructions}] if body.instructions else []
    content = chat_input([*shown, *messages], tools.shown)
    order = Order(
        model=body.model, content=content, sampling=partial(_sampling, body, tools), chat=isinstance(content, Chat),
        priority=body.priority, keep_alive=body.keep_alive,
    )  # fmt: skip
    writer = ResponseWriter(body.model, msgspec.to_builtins(body))

    def keep(response: dict[str, Any], message: dict[str, Any]) -> None:
        if body.store is not False:
            _store(request, response, [*messages, message])

    if body.stream:
        running = await start(request, order)
        events = stream_events(request, running, writer, tools, keep)
        return EventStream(events, on_close=running.close)
    inference = await run(request, order)
    said = tools.read(inference.text, inference.choices[0].reason)
    response = writer.whole(said, inference)
    keep(response, said.message())
    return json_response(response)


def function_tools(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Raises NotSupported: tools that the provider would run itself."""
    for tool in tools or ():
        if tool.get("type", "function") != "function":
            kind = str(tool.get("type"))
            raise NotSupported(
                f"the built-in tool {kind[:40]!r} is not offered; functions are", why="no built-in tools"
            )
    return tools


def _sampling(body: ResponseBody, tools: Toolbox, info: ModelInfo) -> Sampling:
    grammar: Grammar | None = tools.grammar
    if grammar is None and body.text is not None and isinstance(form := body.text.get("format"), dict):
        grammar = response_grammar(form, "text.format")
    chosen = ChatBody(model=body.model, messages=[], temperature=body.temperature, top_p=body.top_p)
    return sampling_of(chosen, info, max_tokens=body.max_output_tokens, grammar=grammar)


def _earlier(request: Request, id: str | None) -> list[dict[str, Any]]:
    if id is None:
        return []
    found = _stored(request, id, "previous_response_id")
    return msgspec.json.decode(found.messages, type=list[dict[str, Any]])


def _store(request: Request, response: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    row = StoredResponse(
        response["id"], caller_of(request).key, msgspec.json.encode(response).decode(),
        msgspec.json.encode(messages).decode(), time.time(),
    )  # fmt: skip
    gateway_of(request).store.add_response(row)


def _stored(request: Request, id: str, param: str) -> StoredResponse:
    found = gateway_of(request).store.response(caller_of(request).key, id)
    if found is None:
        raise HttpError(404, "not_found_error", "not_found", f"this key has no response {id[:80]!r}", param)
    return found


async def get_response(request: Request) -> Response:
    """A response that was kept."""
    found = _stored(request, request.path_params["response"], "response_id")
    return Response(found.body, media_type="application/json")


async def delete_response(request: Request) -> Response:
    """Forget a response."""
    found = _stored(request, request.path_params["response"], "response_id")
    gateway_of(request).store.remove_response(found.key, found.id)
    return json_response({"id": found.id, "object": "response", "deleted": True})

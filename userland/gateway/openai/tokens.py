"""`POST /tokenize` and `/detokenize`, as vLLM's server has them."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Chat, Input, Text, TokenLogprob, Tokens

from ..core.body import json_body
from ..core.respond import json_response
from .messages import chat_input
from .orders import Order, run


class TokenizeBody(Struct, frozen=True, kw_only=True):
    """A text, or a chat."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    return_token_strs: bool = False


class DetokenizeBody(Struct, frozen=True, kw_only=True):
    """Token ids."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    tokens: list[Annotated[int, Meta(ge=0)]]


async def tokenize(request: Request) -> Response:
    """The token ids of a text or a chat."""
    body = await json_body(request, TokenizeBody)
    if (body.prompt is None) == (body.messages is None):
        raise BadArgument("give either prompt or messages", name="prompt", want="a text, or a chat in messages")
    content: Input
    content = Text(text=body.prompt) if body.prompt is not None else chat_input(body.messages or [], body.tools)
    chat = isinstance(content, Chat)
    inference = await run(request, Order(model=body.model, content=content, task="tokenize", chat=chat))
    ids = inference.tokens
    shown: dict[str, Any] = {"tokens": ids, "count": len(ids)}
    if body.return_token_strs:
        shown["token_strs"] = _texts(inference.choices[0].logprobs if inference.choices else None)
    return json_response(shown)


def _texts(found: list[TokenLogprob] | None) -> list[str] | None:
    return None if found is None else [each.text for each in found]


async def detokenize(request: Request) -> Response:
    """The text of token ids."""
    body = await json_body(request, DetokenizeBody)
    inference = await run(request, Order(model=body.model, content=Tokens(ids=body.tokens), task="detokenize"))
    return json_response({"prompt": inference.text})

"""The bodies of the OpenAI API that ask for text, as far as they are served; other fields are ignored and named.

Chat Completions and Completions of https://platform.openai.com/docs/api-reference; the fields from `top_k` on are those
of vLLM's server and our own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]


class StreamOptions(Struct, frozen=True, kw_only=True):
    """What a stream carries beside the text."""

    include_usage: bool = False


class Chosen(Struct, frozen=True, kw_only=True):
    """How the tokens are chosen, and how the request runs: what both bodies share."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    top_k: int | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    keep_alive: float | str | None = None


class ChatBody(Chosen, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(Chosen, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | list[Any] = ""
    best_of: Positive | None = None
    echo: bool = False
    suffix: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


Finish = Literal["stop", "length", "tool_calls"]


def finish_reason(reason: str) -> Finish:
    """What the API calls the reason that an answer ended for."""
    return "length" if reason == "length" else "stop"

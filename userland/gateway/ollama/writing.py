"""Answers of Ollama's API: lines of JSON, times in nanoseconds, errors as one sentence.

What stays the same in all lines of a stream is encoded once: a token costs one short text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from llmos.syscalls.types import Chunk, Inference

from ..core.errors import Failure, answer_of
from ..core.respond import encoded, json_response
from ..openai.tools import Said, ToolCall

FOREVER = "9999-12-31T23:59:59Z"


def error_response(error: Failure, request: Request | None = None) -> Response:
    """An error as Ollama tells it, with the status that it has everywhere."""
    answer = answer_of(error)
    return json_response({"error": answer.message}, answer.status, answer.headers)


def line(value: dict[str, Any]) -> bytes:
    """One line of a stream."""
    return encoded(value) + b"\n"


def error_line(error: Failure) -> bytes:
    """An error inside a stream; nothing comes after it."""
    return line({"error": answer_of(error).message})


def time_text(seconds: float | None = None) -> str:
    """A time since the epoch, or now, as RFC 3339 has it."""
    when = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return when.isoformat().replace("+00:00", "Z")


class Writer:
    """One answer of `/api/chat` or `/api/generate`.

    Args:
        model: the name that the request used.
        chat: which of the two it is.
        load_ns: how long the model took to be there.
    """

    def __init__(self, model: str, *, chat: bool, load_ns: int) -> None:
        self._chat = chat
        self._load_ns = load_ns
        self._frame = {"model": model, "created_at": time_text()}
        start = encoded(self._frame)[:-1]
        self._head = start + (b',"message":{"role":"assistant","content":' if chat else b',"response":')
        self._tail = b'},"done":false}\n' if chat else b',"done":false}\n'

    def text(self, chunk: Chunk) -> bytes:
        """A line of text; none for a chunk without."""
        return self._head + encoded(chunk.text) + self._tail if chunk.text else b""

    def said(self, said: Said) -> bytes:
        """A line with all that was said."""
        return line({**self._frame, **self._answer(said), "done": False})

    def end(self, inference: Inference, said: Said | None = None) -> dict[str, Any]:
        """The last line of a stream, or with what was said the whole answer."""
        timing, usage = inference.timing, inference.usage
        first = timing.first or timing.queued
        return {
            **self._frame,
            **self._answer(said or Said("", [], "")),
            "done": True,
            "done_reason": "length" if inference.choices and inference.choices[0].reason == "length" else "stop",
            "total_duration": self._load_ns + timing.total,
            "load_duration": self._load_ns,
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": first - timing.queued,
            "eval_count": usage.new_tokens,
            "eval_duration": timing.total - first,
        }

    def nothing(self, reason: str) -> dict[str, Any]:
        """The answer to an empty request, which only loads or unloads."""
        return {**self._frame, **self._answer(Said("", [], "")), "done": True, "done_reason": reason}

    def _answer(self, said: Said) -> dict[str, Any]:
        if not self._chat:
            return {"response": said.text}
        message: dict[str, Any] = {"role": "assistant", "content": said.text}
        if said.calls:
            message["tool_calls"] = [_call(call) for call in said.calls]
        return {"message": message}


def _call(call: ToolCall) -> dict[str, Any]:
    """Ollama has arguments as an object, not as JSON text."""
    return {"id": call.id, "function": {"name": call.name, "arguments": msgspec.json.decode(call.arguments)}}

"""Answers of the Responses API, whole and as its events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request

from llmos.syscalls.types import Chunk, Inference, Usage

from ..core.errors import FAILURES, Failure, answer_of
from ..core.respond import encoded, joined, sse
from .orders import Running, told
from .tools import Said, Toolbox, ToolCall, may_be_call
from .writing import new_id

Keep = Callable[[dict[str, Any], dict[str, Any]], None]
"""Told the response and the assistant's message when it is complete."""


class ResponseWriter:
    """One response.

    Args:
        model: the name that the request used.
        asked: the body of the request: some of its fields are told again.
    """

    def __init__(self, model: str, asked: dict[str, Any]) -> None:
        self.id = new_id("resp")
        self.message_id = new_id("msg")
        self._asked = asked
        self._created = int(time.time())
        self._model = model
        self._sequence = 0

    def frame(self, status: str, output: list[dict[str, Any]], usage: Usage | None = None) -> dict[str, Any]:
        """The response as it stands."""
        asked = self._asked
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "metadata": asked.get("metadata") or {},
            "model": self._model,
            "output": output,
            "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
            "previous_response_id": asked.get("previous_response_id"),
            "store": asked.get("store") is not False,
            "temperature": asked.get("temperature"),
            "text": asked.get("text") or {"format": {"type": "text"}},
            "tool_choice": asked.get("tool_choice") or "auto",
            "tools": asked.get("tools") or [],
            "top_p": asked.get("top_p"),
            "truncation": "disabled",
            "usage": None if usage is None else _usage(usage),
        }

    def whole(self, said: Said, inference: Inference) -> dict[str, Any]:
        """The answer that is no stream, and the end of one that is."""
        output = [self.message(said.text)] if said.text or not said.calls else []
        output += [call_item(call) for call in said.calls]
        status = "incomplete" if said.finish == "length" else "completed"
        return self.frame(status, output, inference.usage)

    def message(self, text: str, status: str = "completed") -> dict[str, Any]:
        """The item with the text."""
        content = [part(text)] if status == "completed" else []
        return {"type": "message", "id": self.message_id, "status": status, "role": "assistant", "content": content}

    def event(self, kind: str, **fields: Any) -> bytes:
        """One event of the stream, numbered."""
        data = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return sse(encoded(data), event=kind)

    def failed(self, error: Failure) -> bytes:
        """The last event of a stream that broke."""
        body = answer_of(error).body
        told = {**self.frame("failed", []), "error": {"code": body["code"], "message": body["message"]}}
        return self.event("response.failed", response=told)


def part(text: str) -> dict[str, Any]:
    """A part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(call: ToolCall) -> dict[str, Any]:
    """The item of a call."""
    return {
        "type": "function_call", "id": f"fc_{call.id}", "call_id": call.id, "name": call.name,
        "arguments": call.arguments, "status": "completed",
    }  # fmt: skip


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.new_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.new_tokens,
    }


class _Text:
    """The text of a stream, which opens its item at the first word that is no call."""

    def __init__(self, writer: ResponseWriter, tools: Toolbox) -> None:
        self._writer = writer
        self._holds = bool(tools.names)
        self._held = ""
        self.opened = False

    def chunk(self, chunk: Chunk) -> bytes:
        if self.opened:
            return self._delta(chunk.text)
        self._held += chunk.text
        if self._holds and may_be_call(self._held):
            return b""
        return self.open() + self._delta(self._held) if self._held else b""

    def open(self) -> bytes:
        """The events before the first word."""
        self.opened = True
        writer = self._writer
        item = writer.message("", "in_progress")
        return writer.event("response.output_item.added", output_index=0, item=item) + writer.event(
            "response.content_part.added", item_id=writer.message_id, output_index=0, content_index=0, part=part("")
        )

    def _delta(self, text: str) -> bytes:
        if not text:
            return b""
        return self._writer.event(
            "response.output_text.delta", item_id=self._writer.message_id, output_index=0, content_index=0, delta=text,
            logprobs=[],
        )  # fmt: skip

    def close(self, said: Said) -> bytes:
        """The events after the last word."""
        writer = self._writer
        where = {"item_id": writer.message_id, "output_index": 0, "content_index": 0}
        out = b"" if self.opened else self.open() + self._delta(said.text)
        return out + b"".join(
            [
                writer.event("response.output_text.done", **where, text=said.text, logprobs=[]),
                writer.event("response.content_part.done", **where, part=part(said.text)),
                writer.event("response.output_item.done", output_index=0, item=writer.message(said.text)),
            ]
        )


async def stream_events(
    request: Request, running: Running, writer: ResponseWriter, tools: Toolbox, keep: Keep
) -> AsyncIterator[bytes]:
    """The events of a response, from its creation to its end."""
    reader, first = running.reader, running.first
    text = _Text(writer, tools)
    try:
        begun = writer.frame("in_progress", [])
        head = writer.event("response.created", response=begun) + writer.event("response.in_progress", response=begun)
        yield head + (text.chunk(first) if first is not None else b"")
        async for piece in joined(reader, text.chunk):
            if piece:
                yield piece
        inference = await reader.result()
        told(request, inference)
        said = tools.read(inference.text, inference.choices[0].reason)
        response = writer.whole(said, inference)
        out = text.close(said) if said.text or not said.calls or text.opened else b""
        at = 1 if out else 0
        out += b"".join(_call(writer, call, at + number) for number, call in enumerate(said.calls))
        keep(response, said.message())
        kind = "response.incomplete" if response["status"] == "incomplete" else "response.completed"
        yield out + writer.event(kind, response=response)
    except FAILURES as error:
        yield writer.failed(error)


def _call(writer: ResponseWriter, call: ToolCall, at: int) -> bytes:
    item = call_item(call)
    begun = {**item, "arguments": "", "status": "in_progress"}
    return b"".join(
        [
            writer.event("response.output_item.added", output_index=at, item=begun),
            writer.event(
                "response.function_call_arguments.delta", item_id=item["id"], output_index=at, delta=call.arguments
            ),
            writer.event(
                "response.function_call_arguments.done", item_id=item["id"], output_index=at, name=call.name,
                arguments=call.arguments,
            ),
            writer.event("response.output_item.done", output_index=at, item=item),
        ]
    )  # fmt: skip

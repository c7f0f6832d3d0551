"""Answers of chats and completions, whole and in chunks.

A stream's chunks differ in a few characters, so what stays the same is encoded once: a token costs one short text.
"""

from __future__ import annotations

import os
import time
from typing import Any

from llmos.syscalls.types import Choice, Chunk, Inference, Usage

from ..core.respond import DONE, encoded
from .bodies import finish_reason
from .logprobs import chat_logprobs, completion_logprobs


def new_id(prefix: str) -> str:
    """An id of an answer."""
    return f"{prefix}-{os.urandom(12).hex()}"


def usage_of(usage: Usage) -> dict[str, Any]:
    """What it cost; tokens that were cached are counted in `prompt_tokens` too."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.new_tokens,
        "total_tokens": usage.prompt_tokens + usage.new_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class ChatWriter:
    """One chat's answer.

    Args:
        model: the name that the request used.
        usage: whether a stream ends with what it cost.
        top: alternatives that are reported with each token.
    """

    def __init__(self, model: str, *, usage: bool = False, top: int = 0) -> None:
        self._model = model
        self._usage = usage
        self._top = top
        self._id = new_id("chatcmpl")
        self._created = int(time.time())
        start = encoded({**self._frame("chat.completion.chunk"), "choices": []})[:-2]
        self._start = b"data: " + start
        self._end = b'],"usage":null}\n\n' if usage else b"]}\n\n"
        self._heads: dict[int, bytes] = {}
        self._tail = b'},"logprobs":null,"finish_reason":null}' + self._end

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def whole(self, inference: Inference, messages: list[dict[str, Any]], finish: list[str]) -> dict[str, Any]:
        """The answer that is no stream.

        Args:
            inference: the result.
            messages: of each choice, what the assistant says.
            finish: why each choice ended.
        """
        choices = [
            {
                "index": choice.index,
                "message": message,
                "logprobs": chat_logprobs(choice.logprobs, self._top),
                "finish_reason": reason,
            }
            for choice, message, reason in zip(inference.choices, messages, finish, strict=True)
        ]
        return {**self._frame("chat.completion"), "choices": choices, "usage": usage_of(inference.usage)}

    def role(self, choices: int) -> bytes:
        """The chunks before the first text: who speaks."""
        return b"".join(self.delta(index, {"role": "assistant", "content": ""}) for index in range(choices))

    def text(self, chunk: Chunk) -> bytes:
        """A chunk of text."""
        if chunk.logprobs is not None:
            return self.delta(chunk.index, {"content": chunk.text}, chat_logprobs(chunk.logprobs, self._top))
        if not chunk.text:
            return b""
        head = self._heads.get(chunk.index)
        if head is None:
            head = self._heads[chunk.index] = self._start + b'{"index":%d,"delta":{"content":' % chunk.index
        return head + encoded(chunk.text) + self._tail

    def delta(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> bytes:
        """A chunk of anything else."""
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._start + encoded(choice) + self._end

    def end(self, inference: Inference, finish: list[str] | None = None) -> bytes:
        """The last chunks: why each choice ended, what it cost, and that it is over."""
        reasons = finish or [finish_reason(choice.reason) for choice in inference.choices]
        parts = [
            self.delta(choice.index, {}, finish=reason)
            for choice, reason in zip(inference.choices, reasons, strict=True)
        ]
        if self._usage:
            frame = self._frame("chat.completion.chunk")
            parts.append(b"data: %b\n\n" % encoded({**frame, "choices": [], "usage": usage_of(inference.usage)}))
        return b"".join([*parts, DONE])


class CompletionWriter:
    """One completion's answer, of one prompt or of several. Parameters as for `ChatWriter`.

    Args:
        logprobs: alternatives per token; None reports none.
        echoes: of each prompt, the text that stands before its answers.
    """

    def __init__(self, model: str, *, usage: bool = False, logprobs: int | None = None) -> None:
        self._model = model
        self._usage = usage
        self._top = logprobs
        self._id = new_id("cmpl")
        self._created = int(time.time())
        self._start = b"data: " + encoded({**self._frame(), "choices": []})[:-2]
        self._end = b'],"usage":null}\n\n' if usage else b"]}\n\n"
        self._offsets: dict[int, int] = {}

    def _frame(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": self._created, "model": self._model}

    def whole(self, choices: list[tuple[Choice, str]], usage: Usage) -> dict[str, Any]:
        """The answer that is no stream: choices with the text that is put before each."""
        made = [
            {
                "index": at,
                "text": before + choice.text,
                "logprobs": self._logprobs(choice, len(before)),
                "finish_reason": finish_reason(choice.reason),
            }
            for at, (choice, before) in enumerate(choices)
        ]
        return {**self._frame(), "choices": made, "usage": usage_of(usage)}

    def _logprobs(self, of: Choice | Chunk, offset: int) -> dict[str, Any] | None:
        return completion_logprobs(of.logprobs, self._top or 0, offset)

    def before(self, choices: int, text: str) -> bytes:
        """The prompt, for who wants it again."""
        if not text:
            return b""
        return b"".join(self._piece(index, text) for index in range(choices))

    def text(self, chunk: Chunk) -> bytes:
        """A chunk of text."""
        if not chunk.text and not chunk.logprobs:
            return b""
        offset = self._offsets.get(chunk.index, 0)
        self._offsets[chunk.index] = offset + len(chunk.text)
        return self._piece(chunk.index, chunk.text, self._logprobs(chunk, offset))

    def _piece(self, index: int, text: str, logprobs: dict[str, Any] | None = None, finish: str | None = None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return self._start + encoded(choice) + self._end

    def end(self, inference: Inference) -> bytes:
        """The last chunks."""
        parts = [self._piece(choice.index, "", None, finish_reason(choice.reason)) for choice in inference.choices]
        if self._usage:
            last = {**self._frame(), "choices": [], "usage": usage_of(inference.usage)}
            parts.append(b"data: %b\n\n" % encoded(last))
        return b"".join([*parts, DONE])

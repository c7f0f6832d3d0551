"""Log probabilities as the two APIs write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmos.syscalls.types import TokenLogprob


def chat_logprobs(found: Sequence[TokenLogprob] | None, top: int) -> dict[str, Any] | None:
    """`logprobs` of a choice of a chat."""
    if found is None:
        return None
    content = [
        {
            **_token(each.text, each.logprob),
            "top_logprobs": [_token(text, value) for _, text, value in each.top[:top]],
        }
        for each in found
    ]
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}


def completion_logprobs(found: Sequence[TokenLogprob] | None, top: int, offset: int = 0) -> dict[str, Any] | None:
    """`logprobs` of a choice of a completion; `offset` is where its first token begins, in characters."""
    if found is None:
        return None
    offsets = []
    for each in found:
        offsets.append(offset)
        offset += len(each.text)
    return {
        "tokens": [each.text for each in found],
        "token_logprobs": [max(each.logprob, -9999.0) for each in found],
        "top_logprobs": [{text: max(value, -9999.0) for _, text, value in each.top[:top]} for each in found],
        "text_offset": offsets,
    }

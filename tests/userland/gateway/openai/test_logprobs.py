"""Log probabilities in the two forms of the API."""

from __future__ import annotations

from llmos.syscalls.types import TokenLogprob
from llmos.userland.gateway.openai.logprobs import chat_logprobs, completion_logprobs

FOUND = [
    TokenLogprob(token=1, text="a", logprob=-0.1, top=[(1, "a", -0.1), (2, "b", -2.5)]),
    TokenLogprob(token=3, text="日", logprob=float("-inf")),
]


def test_chats() -> None:
    assert chat_logprobs(None, 5) is None
    made = chat_logprobs(FOUND, 1)
    assert made is not None and made["refusal"] is None
    first, second = made["content"]
    assert first["top_logprobs"] == [{"token": "a", "logprob": -0.1, "bytes": [97]}]
    assert second == {"token": "日", "logprob": -9999.0, "bytes": [230, 151, 165], "top_logprobs": []}


def test_completions() -> None:
    assert completion_logprobs(None, 5) is None
    assert completion_logprobs(FOUND, 2, 10) == {
        "tokens": ["a", "日"], "token_logprobs": [-0.1, -9999.0], "top_logprobs": [{"a": -0.1, "b": -2.5}, {}],
        "text_offset": [10, 11],
    }  # fmt: skip

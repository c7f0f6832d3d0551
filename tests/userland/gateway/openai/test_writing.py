"""Answers of chats and completions, whole and in chunks."""

from __future__ import annotations

import json
from typing import Any

from llmos.syscalls.types import Choice, Chunk, Inference, TokenLogprob, Usage
from llmos.userland.gateway.openai.writing import ChatWriter, CompletionWriter, new_id, usage_of

USAGE = Usage(prompt_tokens=5, cached_tokens=3, new_tokens=2)
SHOWN = {
    "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3},
}  # fmt: skip
LOGPROBS = [TokenLogprob(token=1, text="é", logprob=-0.5, top=[(1, "é", -0.5), (2, "e", float("-inf"))])]


def inference(*choices: Choice) -> Inference:
    return Inference(id="r-1", task="text-generation", model_version="1", choices=list(choices), usage=USAGE)


def choice(index: int, text: str, reason: str = "stop") -> Choice:
    return Choice(index=index, text=text, tokens=[1], reason=reason)


def events(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n\n")
    return [
        json.loads(line.removeprefix("data: ")) for line in data.decode().split("\n\n") if "[DONE]" not in line and line
    ]


def test_ids_and_usage() -> None:
    assert new_id("x").startswith("x-") and new_id("x") != new_id("x") and usage_of(USAGE) == SHOWN


def test_a_chunk_made_of_encoded_parts_is_what_a_whole_encoding_gives() -> None:
    writer = ChatWriter('the "model"', usage=True)
    text = 'say "é\n\u2028日本 \\ 😀'
    (fast,), (slow,) = events(writer.text(Chunk(index=3, text=text))), events(writer.delta(3, {"content": text}))
    assert fast == slow and fast["model"] == 'the "model"' and fast["usage"] is None
    assert fast["choices"] == [{"index": 3, "delta": {"content": text}, "logprobs": None, "finish_reason": None}]
    assert writer.text(Chunk(index=3, text="x")).count(b"\n\n") == 1 and writer.text(Chunk()) == b""


def test_the_beginning_and_the_end_of_a_chat() -> None:
    writer = ChatWriter("m", usage=True)
    assert [each["choices"][0]["delta"] for each in events(writer.role(2))] == [
        {"role": "assistant", "content": ""}
    ] * 2
    end = writer.end(inference(choice(0, "a"), choice(1, "b", "length")))
    assert end.endswith(b"data: [DONE]\n\n")
    first, second, last = events(end)
    assert first["choices"][0]["finish_reason"] == "stop" and second["choices"][0]["finish_reason"] == "length"
    assert last["choices"] == [] and last["usage"] == SHOWN
    assert len(events(ChatWriter("m").end(inference(choice(0, "a"))))) == 1


def test_a_whole_chat() -> None:
    made = ChatWriter("m", top=1).whole(
        inference(Choice(index=0, text="é", tokens=[1], reason="grammar", logprobs=LOGPROBS)),
        [{"content": "é"}],
        ["stop"],
    )
    assert made["object"] == "chat.completion" and made["usage"] == SHOWN
    token = made["choices"][0]["logprobs"]["content"][0]
    assert token == {
        "token": "é", "logprob": -0.5, "bytes": [195, 169],
        "top_logprobs": [{"token": "é", "logprob": -0.5, "bytes": [195, 169]}],
    }  # fmt: skip


def test_completions() -> None:
    writer = CompletionWriter("m", logprobs=2)
    made = writer.whole([(Choice(index=0, text="é", tokens=[1], reason="stop", logprobs=LOGPROBS), "ab")], USAGE)
    assert made["choices"][0]["text"] == "abé"
    assert made["choices"][0]["logprobs"] == {
        "tokens": ["é"], "token_logprobs": [-0.5], "top_logprobs": [{"é": -0.5, "e": -9999.0}], "text_offset": [2],
    }  # fmt: skip
    one, two = (events(writer.text(Chunk(text="é", logprobs=LOGPROBS)))[0] for _ in range(2))
    assert one["choices"][0]["logprobs"]["text_offset"] == [0]
    assert two["choices"][0]["logprobs"]["text_offset"] == [1]
    assert writer.text(Chunk()) == b"" and writer.before(1, "") == b""
    assert events(writer.before(1, "ab"))[0]["choices"][0]["text"] == "ab"
    assert len(events(CompletionWriter("m", usage=True).end(inference(choice(0, "a"))))) == 2

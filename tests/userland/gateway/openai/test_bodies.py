"""The bodies: what is refused, and that the page tells of every field."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llmos.userland.gateway.openai.bodies import ChatBody, CompletionBody, finish_reason
from llmos.userland.gateway.openai.embeddings import EmbeddingBody
from llmos.userland.gateway.openai.jobs import JobBody
from llmos.userland.gateway.openai.responses import ResponseBody


@pytest.mark.parametrize("body", [ChatBody, CompletionBody, EmbeddingBody, ResponseBody, JobBody])
def test_the_page_tells_of_every_field(body: type[msgspec.Struct], root: Path) -> None:
    page = (root / "docs/http.md").read_text()
    assert [name for name in body.__struct_fields__ if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""}, {"model": 5}, {"messages": []}, {"messages": "hi"}, {"temperature": 3}, {"top_p": 0}, {"n": 0},
        {"max_tokens": -1}, {"logit_bias": {"x": 1}}, {"top_logprobs": 21}, {"stream": "yes"}, {"stop": 5},
    ],
)  # fmt: skip
def test_what_cannot_be(fields: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"model": "m", "messages": [{}], **fields}, ChatBody)


def test_token_ids_of_a_bias_are_numbers() -> None:
    text = b'{"model": "m", "messages": [{}], "logit_bias": {"50256": -100}}'
    assert msgspec.json.decode(text, type=ChatBody).logit_bias == {50256: -100.0}


def test_reasons() -> None:
    reasons = ["stop", "length", "grammar", "cancelled"]
    assert [finish_reason(reason) for reason in reasons] == ["stop", "length", "stop", "stop"]

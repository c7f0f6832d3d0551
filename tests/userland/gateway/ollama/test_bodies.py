"""The bodies of Ollama's API."""

from __future__ import annotations

import msgspec
import pytest

from llmos.userland.gateway.ollama.bodies import ChatBody, EmbedBody, GenerateBody, PullBody, streams


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"model":"x:latest"}', "x"),
        (b'{"name":"org/x:v1"}', "org/x:v1"),
        (b'{"model":"a","name":"b"}', "a"),
        (b"{}", ""),
    ],
)
def test_the_name_of_a_model(body: bytes, wanted: str) -> None:
    assert msgspec.json.decode(body, type=PullBody).wanted == wanted


def test_what_is_not_given_is_as_ollama_has_it() -> None:
    body = msgspec.json.decode(b'{"model":"x","options":{"num_ctx":9}}', type=GenerateBody)
    assert streams(body.stream) and body.options is not None
    assert (body.options.temperature, body.options.top_k, body.options.top_p) == (0.8, 40, 0.9)


def test_what_is_null_is_not_given() -> None:
    raw = b'{"model":"x","stream":null,"options":null,"tools":null,"messages":[{"role":"user","content":null}]}'
    body = msgspec.json.decode(raw, type=ChatBody)
    assert streams(body.stream) and not streams(False) and body.messages[0].content is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatBody, b'{"messages":[{"content":"no role"}]}'),
        (ChatBody, b'{"options":{"temperature":-1}}'),
        (GenerateBody, b'{"prompt":5}'),
        (EmbedBody, b'{"model":"x"}'),
    ],
)
def test_a_wrong_body_is_refused(kind: type, body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=kind)

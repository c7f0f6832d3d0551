"""Chats over HTTP with a real model: the bundled one on the CPU. What the null device shows is in `test_client`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway_server import GatewayServer, serving
from system.kernel_process import running

TINY = {"model": "tiny"}
PICK = {
    "type": "function",
    "function": {
        "name": "pick",
        "parameters": {
            "type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False,
        },
    },
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def module_gateway() -> Iterator[GatewayServer]:
    """A gateway before a kernel with a CPU device."""
    with tempfile.TemporaryDirectory(prefix="t") as path, running(Path(path), drivers="cpu0,models,files") as kernel:
        with kernel.client() as client:
            for driver in ("cpu0", "models", "files"):
                client.await_driver("ready", driver)
        with serving(kernel) as server:
            yield server


def post(gateway: GatewayServer, path: str, body: object) -> Any:
    return gateway.client().post(path, json=body)


def test_the_client_of_openai(gateway: GatewayServer) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(), max_retries=0) as client:
        messages = [{"role": "user", "content": "What is a list?"}]
        whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, temperature=0)
        stream = client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=20, temperature=0, stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole.choices[0].message.content
        assert whole.usage.completion_tokens > 0
        one, two = (
            client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, seed=7) for _ in range(2)
        )
        assert one.choices[0].message.content == two.choices[0].message.content


def test_the_same_routes_stand_with_and_without_v1(gateway: GatewayServer) -> None:
    for path in ("/tokenize", "/v1/tokenize"):
        ids = post(gateway, path, {**TINY, "prompt": "def f"}).json()
        assert ids["count"] == len(ids["tokens"]) > 0
    assert post(gateway, "/v1/detokenize", {**TINY, "tokens": ids["tokens"]}).json() == {"prompt": "def f"}
    chat = post(gateway, "/tokenize", {**TINY, "messages": [{"role": "user", "content": "def f"}]}).json()
    assert chat["count"] > ids["count"]


def test_one_key_cannot_repeat_what_another_cached(gateway: GatewayServer) -> None:
    """The cache of prefixes is a key's own: /models/tiny has one."""
    text = " ".join(f"def function_{number}(x): return x" for number in range(20))
    body = {**TINY, "prompt": text, "max_tokens": 1, "temperature": 0}
    mine, other = gateway.client(), gateway.client()

    def cached(client: Any) -> int:
        return int(client.post("/v1/completions", json=body).json()["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert cached(mine) == 0 and cached(mine) > 0 and cached(other) == 0


def test_structured_output(gateway: GatewayServer) -> None:
    asked = {**TINY, "messages": [{"role": "user", "content": "pick"}], "max_tokens": 60}
    forced = {**asked, "tools": [PICK], "tool_choice": "required"}
    called = post(gateway, "/v1/chat/completions", forced).json()
    assert "tool_calls" in called["choices"][0]["message"], called
    (call,) = called["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "pick" and json.loads(call["function"]["arguments"])["n"] in (1, 2)
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    said = post(gateway, "/v1/chat/completions", {**asked, "response_format": schema}).json()
    assert json.loads(said["choices"][0]["message"]["content"]) in ("yes", "no")
    streamed = post(gateway, "/v1/chat/completions", {**forced, "stream": True})
    assert '"tool_calls"' in streamed.text and streamed.text.endswith("data: [DONE]\n\n")


def test_embeddings_of_several_texts(gateway: GatewayServer) -> None:
    made = post(gateway, "/v1/embeddings", {**TINY, "input": ["a list", "a tuple", [1, 2, 3]]}).json()
    assert len(made["data"]) == 3 and len(made["data"][0]["embedding"]) == len(made["data"][2]["embedding"]) > 8


def test_the_context_is_the_limit(gateway: GatewayServer) -> None:
    answer = post(gateway, "/v1/completions", {**TINY, "prompt": "x " * 2000})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"
    default = post(gateway, "/v1/chat/completions", {**TINY, "messages": [{"role": "user", "content": "List?"}]})
    assert default.status_code == 200, default.text

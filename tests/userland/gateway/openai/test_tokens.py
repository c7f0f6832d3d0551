"""Tokens over HTTP with the null device, which has none; with a real model they are in `test_chat`."""

from __future__ import annotations

from gateway_server import GatewayServer


def test_what_has_no_tokenizer_says_so(gateway: GatewayServer) -> None:
    for path, body in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]})):
        answer = gateway.client().post(path, json={"model": "null", **body})
        assert answer.status_code == 501 and "detokenize"[2:] in answer.json()["error"]["message"]


def test_a_text_or_a_chat(gateway: GatewayServer) -> None:
    both = {"model": "null", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}
    assert gateway.client().post("/tokenize", json=both).json()["error"]["param"] == "prompt"

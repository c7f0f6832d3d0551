"""Runs in the environment of the real Ollama client: `ollama_script.py URL KEY`; prints what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import ollama

MESSAGES = [{"role": "user", "content": "hello"}]
CALL = '{"name": "look", "arguments": {"at": "sky"}}'
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def refused(call: Callable[[], Any]) -> list[Any]:
    """Status and text of the error that a call ends with."""
    try:
        return [200, str(call())]
    except ollama.ResponseError as error:
        return [error.status_code, error.error]


async def together(url: str, headers: dict[str, str]) -> list[str]:
    """Two streams at once through the asynchronous client."""
    client = ollama.AsyncClient(host=url, headers=headers)

    async def one(text: str) -> str:
        stream = await client.chat("null", [{"role": "user", "content": text}], stream=True)
        return "".join([part.message.content or "" async for part in stream])

    return list(await asyncio.gather(one("first"), one("second")))


def main(url: str, key: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    client = ollama.Client(host=url, headers=headers)
    short = {"num_predict": 3, "temperature": 0, "seed": 1}
    whole = client.chat("null", MESSAGES)
    called = client.chat("null", [{"role": "user", "content": CALL}], tools=TOOLS)
    streamed = list(client.chat("null", MESSAGES, stream=True, options=short, keep_alive="5m"))
    generated = list(client.generate("null:latest", "abc", stream=True))
    return {
        "whole": [whole.message.role, whole.message.content, whole.done_reason, whole.eval_count],
        "streamed": ["".join(part.message.content or "" for part in streamed), streamed[-1].done_reason],
        "called": [[call.function.name, dict(call.function.arguments)] for call in called.message.tool_calls or []],
        "generated": ["".join(part.response for part in generated), generated[-1].done],
        "embedded": [len(row) for row in client.embed("null", ["a", "b"]).embeddings],
        "embedding": len(client.embeddings("null", "a").embedding),
        "stored": sorted(model.model or "" for model in client.list().models),
        "running": sorted(model.model or "" for model in client.ps().models),
        "shown": client.show("null").capabilities,
        "pulled": [part.status for part in client.pull("null", stream=True)],
        "together": asyncio.run(together(url, headers)),
        "unknown": refused(lambda: client.chat("none", MESSAGES)),
        "no key": refused(lambda: ollama.Client(host=url).chat("null", MESSAGES)),
        "schema": refused(lambda: client.chat("null", MESSAGES, format=SCHEMA)),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))

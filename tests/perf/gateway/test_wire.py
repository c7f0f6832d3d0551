"""The benches' own HTTP client reads what servers say."""

from __future__ import annotations

import asyncio
import json

import pytest
from gateway.wire import Refused, Target, rate, stream, texts, whole

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("received", "done"),
    [
        (b"HTTP/1.1 200 OK\r\n", False),
        (HEAD + b"Content-Length: 2\r\n\r\n{", False),
        (HEAD + b"Content-Length: 2\r\n\r\n{}", True),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", False),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", True),
    ],
)
def test_when_an_answer_is_complete(received: bytes, done: bool) -> None:
    assert whole(received) is done


def test_what_events_say() -> None:
    def line(delta: dict[str, str]) -> bytes:
        return b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode()

    given = [line({"role": "assistant", "content": ""}), b"", line({"content": "a"}), line({"content": ""}), b": hi"]
    assert list(texts([*given, line({}), b"data: [DONE]"])) == ["a", ""]
    with pytest.raises(Refused, match="broken"):
        list(texts([b'data: {"error": {"message": "broken"}}']))


def test_a_chat_is_asked_for_with_a_key() -> None:
    sent = Target("x", 1, "m", "k", {"ignore_eos": True}).chat("hi", 3)
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n") and b"Authorization: Bearer k" in head
    assert json.loads(body)["max_tokens"] == 3 and json.loads(body)["ignore_eos"] is True


async def test_a_stream_is_timed_and_a_refusal_is_told() -> None:
    events = [b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', b"data: [DONE]\n\n"]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in (*events, b""))
    answers = [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\n\r\n{}",
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        asked = Target("x", port, "m").request("GET", "/")
        told = await stream(port, asked)
        assert told.texts == 1 and 0 < told.first <= told.end
        with pytest.raises(Refused, match="429"):
            await stream(port, asked)
        assert await rate(port, asked, 2, 2) > 0

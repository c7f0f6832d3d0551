"""What the gateway adds to the native client, and what an idle stream keeps in memory; on the null device.

Per request: the time of a stream of one token through HTTP, less that of the same through the native client. Per token:
what each of 128 more tokens adds, less the same of the native client. All cases in turn, so that drift hits both.
"""

from __future__ import annotations

import asyncio
import json
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
from measure import REPEATS, Row, interleaved, quantile, timed

from llmos.syscalls import calls
from llmos.syscalls.types import Chat, Sampling

from .ours import Ours, ours
from .wire import Connection, rate

MORE = 128
NAME = "null"
REQUEST_AIM_MS, TOKEN_AIM_MS, STREAM_AIM_KIB = 1.0, 0.1, 50.0
SLOW = "!slow 5; x"
"""A prompt that makes each step of the device take so many milliseconds more."""


@contextmanager
def null() -> Iterator[Ours]:
    """The null device with a model that knows 8192 tokens."""
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as path:
        folder = Path(path) / NAME
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "null", "max_position_embeddings": 8192}))
        header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
        with ours(folder, NAME, "null0,models,files") as made:
            yield made


def rows(count: int = 300, streams: int = 500) -> list[Row]:
    """All figures of this file: `count` requests a repeat, `streams` idle streams."""
    with null() as made:
        return [*added(made, count), *rates(made, count * 4), idle(made, streams)]


def added(made: Ours, count: int) -> list[Row]:
    """What HTTP adds to a request and to a token."""
    texts = {1: "x", 1 + MORE: "x" * (1 + MORE)}
    native = {tokens: _native(made, text, tokens) for tokens, text in texts.items()}

    def natively(call: calls.InferStream) -> None:
        stream = made.client.stream(call)
        for _chunk in stream:
            pass
        _ = stream.result

    with Connection(made.target.port) as connection:
        cases = {}
        for tokens, text in texts.items():
            request = made.target.chat(text, tokens)
            cases[f"native {tokens}"] = partial(timed, partial(natively, native[tokens]), count)
            cases[f"http {tokens}"] = partial(timed, partial(connection.ask, request), count)
        for case in cases.values():
            case()
        samples = interleaved(cases)
    found = {name: quantile(repeats, 0.5) * 1e3 for name, repeats in samples.items()}
    request = found["http 1"] - found["native 1"]
    http, own = (found[f"{way} {1 + MORE}"] - found[f"{way} 1"] for way in ("http", "native"))
    token = (http - own) / MORE
    return [
        Row("a request of one token, p50", found["http 1"], found["native 1"], "ms",
            found["http 1"] / found["native 1"], "", None, "peer: the native client"),
        Row("added to a request, p50", request, None, "ms", None, f"< {REQUEST_AIM_MS:g} ms", request < REQUEST_AIM_MS),
        Row("a further token, p50", http / MORE, own / MORE, "ms", http / own if own > 0 else None, "", None,
            "peer: the native client"),
        Row("added to a token, p50", token, None, "ms", None, f"< {TOKEN_AIM_MS:g} ms", token < TOKEN_AIM_MS),
    ]  # fmt: skip


def _native(made: Ours, text: str, tokens: int) -> calls.InferStream:
    """The same chat without HTTP."""
    content = Chat(messages=[{"role": "user", "content": text}])
    return calls.InferStream(model=made.model, input=content, sampling=Sampling(max_tokens=tokens))


def rates(made: Ours, count: int) -> list[Row]:
    """Short requests a second through 32 connections."""
    target = made.target
    asked = {
        "/health/live": target.request("GET", "/health/live"),
        "/health": target.request("GET", "/health"),
        "/v1/embeddings": target.request("POST", "/v1/embeddings", {"model": target.model, "input": "hello"}),
    }
    found = []
    for path, request in asked.items():
        best = sorted(asyncio.run(rate(target.port, request, 32, count)) for _ in range(REPEATS))[REPEATS // 2]
        found.append(Row(f"{path} on the null device, 32 connections", best, None, "/s", None, "", None))
    return found


def idle(made: Ours, streams: int) -> Row:
    """Resident memory of the gateway for each stream that is open and says little."""
    process = psutil.Process(made.gateway.pid)

    async def wave() -> int:
        request = made.target.chat(SLOW, 4000)
        open_streams = [await asyncio.open_connection("127.0.0.1", made.target.port) for _ in range(streams)]
        for _, writer in open_streams:
            writer.write(request)
        held = await _settled(process)
        assert _in_flight(made) >= streams, "some of the streams were refused"
        for _, writer in open_streams:
            writer.transport.abort()
        return held

    asyncio.run(wave())  # what is made once is made now
    before = asyncio.run(_settled(process))
    each = (asyncio.run(wave()) - before) / streams / 1024
    return Row(
        f"memory of an idle stream, of {streams}", each, None, "KiB", None, f"< {STREAM_AIM_KIB:g} KiB",
        each < STREAM_AIM_KIB,
    )  # fmt: skip


def _in_flight(made: Ours) -> float:
    """Requests that the kernel has not answered yet."""
    name = "llmos_requests_in_flight"
    return made.client.call(calls.ReadMetrics(system=made.client.welcome.system, prefix=name))[name].value


async def _settled(process: psutil.Process) -> int:
    """Resident bytes once they have not changed for a second."""
    held, same = 0, 0
    while same < 5:
        await asyncio.sleep(0.2)
        now = process.memory_info().rss
        same = same + 1 if abs(now - held) < 1 << 16 else 0
        held = now
    return held

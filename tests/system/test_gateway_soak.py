"""Five hundred streams at once through real processes: a third read slowly, a third leave; the others miss nothing."""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from system.footprint import Footprint
from system.kernel_process import ALL, KernelProcess, running
from system.model_folder import CONFIG, write_model

from llmos.userland.gateway.core.keys import KeyStore, database

STREAMS = 500
SHORT, LONG = 200, 3000
"""Tokens of an answer; the null device has a token for each byte. A long one is more than a socket holds."""
PATIENCE_S = 100.0
SMALL, LARGE = 1 << 12, 1 << 16
"""Bytes that a reader takes in unasked."""
GROWTH = 16 << 20
"""Bytes that the gateway may have grown by after the second wave: what allocators keep, not what requests hold."""


class GatewayProcess:
    """A gateway beside a kernel, in a process of its own."""

    def __init__(self, kernel: KernelProcess) -> None:
        self.path = str(kernel.runtime / "http.sock")  # its buffers are small; those of the loopback hold whole answers
        read, write = os.pipe()
        settings = {"per_key_connections": STREAMS * 2, "connections": STREAMS * 2, "log": "none"}
        argv = [sys.executable, "-P", "-m", "llmos.userland.gateway", "--http", f"unix:{self.path}"]
        argv += ["--settings", json.dumps(settings), "--home", str(kernel.home), "--runtime", str(kernel.runtime)]
        argv += ["--parent", str(os.getpid()), "--ready-fd", str(write)]
        self.process = subprocess.Popen(argv, pass_fds=[write], stdout=subprocess.DEVNULL)
        os.close(write)
        ready, _, _ = select.select([read], [], [], PATIENCE_S)
        line = os.read(read, 200).decode() if ready else ""
        os.close(read)
        if not line.startswith("READY "):
            self.stop()
            raise AssertionError(f"the gateway did not start: {line!r}")
        self.seen = psutil.Process(self.process.pid)
        store = KeyStore(database(kernel.home))
        self.key, _ = store.create("soak", user="test", scopes=("infer", "read"))
        store.close()

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    config = "[drivers.null0.config]\nslots = 64\n"
    with tempfile.TemporaryDirectory(prefix="t") as path:
        folder = write_model(Path(path) / "home/models/null")
        (folder / "config.json").write_text(json.dumps({**CONFIG, "max_position_embeddings": 4 * LONG}))
        with running(Path(path), config, drivers=ALL) as kernel:
            with kernel.client() as client:
                for driver in ("null0", "models", "files"):
                    client.await_driver("ready", driver)
            yield kernel


@contextmanager
def serving(kernel: KernelProcess) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(kernel)
    try:
        yield gateway
    finally:
        status = gateway.stop()
    assert status == 0


class Stream:
    """One chat as a stream, read from a bare socket: `pieces` gives what arrives."""

    def __init__(self, gateway: GatewayProcess, number: int, tokens: int) -> None:
        self._gateway = gateway
        head = f"{number:06d} "
        self.prompt = head + "".join(chr(97 + (number + at) % 26) for at in range(tokens - len(head)))
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def begin(self, limit: int) -> None:
        """Send the request and read the first bytes of its answer."""
        self._reader, self._writer = await asyncio.open_unix_connection(self._gateway.path, limit=limit)
        body = {
            "model": "null", "stream": True, "max_tokens": len(self.prompt),
            "messages": [{"role": "user", "content": self.prompt}],
        }  # fmt: skip
        self._writer.write(request("POST", "/v1/chat/completions", self._gateway.key, json.dumps(body).encode()))
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head + await self._reader.read(1000)

    async def text(self) -> str:
        """The whole answer; it must end as the API says."""
        said: list[str] = []
        async for data in self._events():
            if data == b"[DONE]":
                return "".join(said)
            event = json.loads(data)
            assert "error" not in event, event
            said += [choice["delta"].get("content") or "" for choice in event["choices"]]
        raise AssertionError(f"the stream was cut after {len(said)} events")

    async def _events(self) -> AsyncIterator[bytes]:
        rest = b""
        while size := int(await self._reader.readline(), 16):
            rest += (await self._reader.readexactly(size + 2))[:-2]
            *whole, rest = rest.split(b"\n\n")
            for event in whole:
                yield event.removeprefix(b"data: ")

    def leave(self) -> None:
        """End the connection without a word."""
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def request(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def figures(gateway: GatewayProcess) -> dict[str, float]:
    """Metrics without labels, by name."""
    reader, writer = await asyncio.open_unix_connection(gateway.path, limit=1 << 24)
    writer.write(request("GET", "/metrics", gateway.key).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    page = (await reader.read()).partition(b"\r\n\r\n")[2].decode()
    writer.close()
    await writer.wait_closed()
    return {s.name: s.value for family in parse(page) for s in family.samples if not s.labels}


async def wave(gateway: GatewayProcess) -> None:
    """All streams begin; a third leaves at once, a third reads to the end, and only then the slow third goes on."""

    async def begin(number: int, stream: Stream) -> None:
        await stream.begin(SMALL if number % 3 else LARGE)
        if number % 3 == 2:
            stream.leave()

    streams = [Stream(gateway, n, SHORT if n % 3 == 0 else LONG) for n in range(STREAMS)]
    await asyncio.gather(*(begin(n, stream) for n, stream in enumerate(streams)))
    for third in (streams[0::3], streams[1::3]):
        for stream, text in zip(third, await asyncio.gather(*(s.text() for s in third)), strict=True):
            assert text == stream.prompt
        await asyncio.gather(*(stream.close() for stream in third))


async def settled(gateway: GatewayProcess) -> dict[str, float]:
    """The figures once nothing is under way."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await figures(gateway)
            if found["llmos_gateway_streams"] == 0 and found["llmos_gateway_connections"] == 1:
                return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_five_hundred_streams(kernel: KernelProcess) -> None:
    with serving(kernel) as gateway, kernel.client() as client:

        async def run() -> None:
            await wave(gateway)  # what is made once is made now: the session of the key, threads, arenas
            before = await settled(gateway)
            footprint, descriptors = Footprint(kernel, client), gateway.seen.num_fds()
            await wave(gateway)
            after = await settled(gateway)
            gone = after["llmos_gateway_disconnects_total"] - before["llmos_gateway_disconnects_total"]
            assert 0 < gone <= len(range(2, STREAMS, 3))  # some had their whole answer on its way already
            assert after["llmos_requests_in_flight"] == before["llmos_requests_in_flight"]
            grown = after["llmos_gateway_resident_bytes"] - before["llmos_gateway_resident_bytes"]
            assert grown < GROWTH
            assert gateway.seen.num_fds() == descriptors
            footprint.gone()

        asyncio.run(run())

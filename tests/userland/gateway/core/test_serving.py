"""Listening, and stopping without cutting an answer short; what a client that leaves, stalls or dawdles meets."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway_server import PATIENCE_S, GatewayServer, kernel_for_gateway, serving
from system.kernel_process import KernelProcess, running

from llmos.syscalls.types import Kind
from llmos.userland.gateway.core.serving import CannotListen, bound, raise_limits
from llmos.userland.gateway.core.settings import BadSettings, Settings, address_of

SLOW = "!slow 20; " + "slow and steady " * 8


def chat(text: str, **more: object) -> dict[str, object]:
    return {"model": "null", "messages": [{"role": "user", "content": text}], **more}


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.005)


def waiting_or_running(gateway: GatewayServer) -> int:
    async def count() -> int:
        own = await gateway.gateway.sessions.own()
        models = await own.objects(Kind.MODEL)
        return sum(int(model.fields["running"]) + int(model.fields["waiting"]) for model in models)

    return gateway.run(count())


def open_stream(
    gateway: GatewayServer, text: str = SLOW
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A stream whose first chunk has come."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {gateway.key()}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(chat(text, stream=True)), headers)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.readline().startswith(b"data: ")
    return connection, answer


def test_a_client_that_leaves_a_stream_ends_its_request(gateway: GatewayServer) -> None:
    connection, answer = open_stream(gateway)
    assert waiting_or_running(gateway) == 1
    answer.close()
    connection.close()
    eventually(lambda: waiting_or_running(gateway) == 0 and gateway.gateway.state.running == 0)
    assert gateway.gateway.instruments.disconnects._value.get() >= 1


def test_a_client_that_leaves_before_its_answer_ends_its_request(gateway: GatewayServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {gateway.key()}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(chat(SLOW)), headers)
    eventually(lambda: waiting_or_running(gateway) == 1)
    connection.close()
    eventually(lambda: waiting_or_running(gateway) == 0 and gateway.gateway.state.running == 0)


def test_both_sockets_serve_and_a_keep_alive_connection_serves_again(gateway: GatewayServer) -> None:
    key = gateway.key("read")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.settimeout(PATIENCE_S)
        unix.connect(gateway.socket)
        for _ in range(2):
            unix.sendall(f"GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
            text = b""
            while not text.endswith(b"}"):
                text += unix.recv(4096)
            assert b"200 OK" in text
    assert Path(gateway.socket).stat().st_mode & 0o777 == 0o600


def answered(server: GatewayServer, sent: bytes) -> bytes:
    """What comes back, to its end, for bytes after which nothing more is sent."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as raw:
        raw.sendall(sent)
        text = b""
        while data := raw.recv(4096):
            text += data
        return text


def test_a_head_that_does_not_come_or_does_not_end(gateway_kernel: KernelProcess) -> None:
    with serving(gateway_kernel, header_s=0.1, header_bytes=1000, body_s=0.1) as server:
        assert b"408" in answered(server, b"") and b"408" in answered(server, b"GET / HTTP/1.1\r\nHo")
        assert b"431" in answered(server, b"GET / HTTP/1.1\r\nX: " + b"y" * 2000)
        assert b"400 Bad Request" in answered(server, b"nonsense\r\n\r\n")
        key = server.key("infer")
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 50"
        slow = answered(server, f"{head}\r\n\r\n{{".encode())
        assert b"408" in slow and b"body_timeout" in slow and b"connection: close" in slow


def test_too_many_connections(gateway_kernel: KernelProcess) -> None:
    with serving(gateway_kernel, connections=2) as server:
        kept = [socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) for _ in range(2)]
        for each in kept:
            each.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            text = b""
            while not text.endswith(b"}"):
                text += each.recv(4096)
        refused = answered(server, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"503" in refused and b"Retry-After: 1" in refused and b'"no_resources"' in refused
        for each in kept:
            each.close()


def test_a_reader_that_takes_nothing_is_let_go(gateway_kernel: KernelProcess) -> None:
    with serving(gateway_kernel, stalled_reader_s=0.2) as server:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        body = json.dumps(chat("x" * 1000, stream=True, n=64, ignore_eos=True, max_tokens=1000)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key()}\r\n"
        connection.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        eventually(lambda: server.gateway.state.running == 1)
        eventually(lambda: server.gateway.state.running == 0)
        assert waiting_or_running(server) == 0
        connection.close()
        server.forget()


def test_a_drain_lets_streams_end_and_turns_new_requests_away(gateway_kernel: KernelProcess) -> None:
    server = GatewayServer(gateway_kernel)
    try:
        connection, answer = open_stream(server, "!slow 20; all of this comes, however long it takes")
        late = server.client()
        stopping = asyncio.run_coroutine_threadsafe(server.server.stop(20.0), server._loop)
        eventually(lambda: server.gateway.state.draining)
        refused = late.get("/health/ready")
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert late.get("/health/live").status_code == 200
        text = answer.read()
        assert text.endswith(b"data: [DONE]\n\n") and b'"finish_reason":"stop"' in text
        stopping.result(PATIENCE_S)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        connection.close()
    finally:
        server.close()


def test_what_does_not_end_within_the_drain_is_cancelled(gateway_kernel: KernelProcess) -> None:
    server = GatewayServer(gateway_kernel)
    try:
        connection, answer = open_stream(server)
        server.run(server.server.stop(0.0))
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        connection.close()
        eventually(lambda: waiting_or_running(server) == 0)
    finally:
        server.close()


def test_a_kernel_that_is_killed_under_a_stream_and_comes_back() -> None:
    with kernel_for_gateway() as kernel, serving(kernel) as server:
        client = server.client()
        assert client.post("/v1/chat/completions", json=chat("x")).status_code == 200
        connection, answer = open_stream(server)
        folder = kernel.home.parent
        kernel.signal(signal.SIGKILL)
        kernel.ended()
        text = answer.read()
        assert b'"error"' in text and b"[DONE]" not in text
        connection.close()
        away = client.get("/health/ready")
        assert away.status_code == 503 and away.headers["retry-after"] == "1"
        assert client.post("/v1/chat/completions", json=chat("x")).status_code in (502, 503)
        kernel.clean()
        with running(folder, drivers="null0,models,files") as again:
            with again.client() as session:
                for driver in ("null0", "models"):
                    session.await_driver("ready", driver)
            assert client.get("/health/ready").status_code == 200
            back = client.post("/v1/chat/completions", json=chat("here again"))
            assert back.status_code == 200 and "here again" in back.text
            server.forget()


def test_where_it_cannot_listen(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(CannotListen) as raised:
            bound(address_of(f"127.0.0.1:{taken.getsockname()[1]}"))
        assert "Address already in use" in str(raised.value)
    path = folder / "x.sock"
    first = bound(address_of(f"unix:{path}"))
    first.listen()
    with pytest.raises(CannotListen):
        bound(address_of(f"unix:{path}"))
    first.close()
    bound(address_of(f"unix:{path}")).close()
    with pytest.raises(CannotListen):
        bound(address_of(f"unix:{folder}/no/such/folder.sock"))


def test_as_many_descriptors_as_there_may_be_connections() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        raise_limits(Settings(connections=1 << 40))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_certificate_that_is_none(gateway_kernel: KernelProcess) -> None:
    with pytest.raises(BadSettings) as raised:
        GatewayServer(gateway_kernel, certificate="/no/cert.pem", private_key="/no/key.pem")
    assert "/no/cert.pem" in str(raised.value)

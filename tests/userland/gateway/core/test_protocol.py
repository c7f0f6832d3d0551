"""A connection's own limits, beside those that test_serving shows."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from gateway_server import PATIENCE_S, serving
from system.kernel_process import KernelProcess

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def read(raw: socket.socket, end: bytes) -> bytes:
    text = b""
    while not text.endswith(end) and (data := raw.recv(4096)):
        text += data
    return text


def test_the_second_head_of_a_connection_has_its_time_too(gateway_kernel: KernelProcess) -> None:
    with serving(gateway_kernel, header_s=0.2) as server, socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.settimeout(PATIENCE_S)
        raw.sendall(REQUEST)
        assert b"200 OK" in read(raw, b"}")
        raw.sendall(REQUEST[:10])
        assert b"408" in read(raw, b"never")


def test_an_idle_connection_is_closed_without_a_word(gateway_kernel: KernelProcess) -> None:
    with serving(gateway_kernel, idle_s=1) as server, socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.settimeout(PATIENCE_S)
        raw.sendall(REQUEST)
        assert read(raw, b"never").endswith(b'{"status":"live"}')


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl program to make a certificate")
def test_https(gateway_kernel: KernelProcess, folder: Path) -> None:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    with serving(gateway_kernel, certificate=str(certificate), private_key=str(key), header_bytes=500) as server:
        assert server.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        for sent, answer in ((REQUEST, b"200 OK"), (b"GET / HTTP/1.1\r\nX: " + b"y" * 1000, b"431")):
            raw = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
            with raw, context.wrap_socket(raw, server_hostname="localhost") as secure:
                secure.sendall(sent)
                assert answer in read(secure, b"}")

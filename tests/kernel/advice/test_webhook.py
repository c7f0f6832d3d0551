"""The process that sends an alert to a URL, against real servers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from llmos.kernel.advice import webhook


class Hook(HTTPServer):
    """Answers with the next status of a list, the last one again and again, and keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.got: list[tuple[str, str, Any]] = []
        self.thread = threading.Thread(target=self.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?key=secret"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, self.headers["content-type"], json.loads(body)))
        status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook(200)
    server.thread.start()
    yield server
    server.shutdown()
    server.thread.join()
    server.server_close()


def _deliver(url: str, timeout_s: float = 10.0) -> tuple[str, list[float]]:
    slept: list[float] = []
    return webhook.deliver(url, b"{}", timeout_s, lambda: sum(slept), slept.append), slept


def test_the_process_posts_the_alert(hook: Hook) -> None:
    environ = {**os.environ, "LLMOS_WEBHOOK": hook.url, "LLMOS_ALERT": '{"rule": "hot"}'}
    ran = subprocess.run([sys.executable, "-P", webhook.__file__, "5"], env=environ, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert hook.got == [("/hook?key=secret", "application/json", {"rule": "hot"})]


def test_what_went_wrong_is_said_without_the_url(hook: Hook, capsys: pytest.CaptureFixture[str]) -> None:
    hook.statuses = [500]
    assert webhook.main(["0.1"], {"LLMOS_WEBHOOK": hook.url, "LLMOS_ALERT": "{}"}) == 1
    said = capsys.readouterr().out
    assert said == "it answered 500 Internal Server Error\n" and "secret" not in said
    hook.statuses = [200]
    assert webhook.main(["5"], {"LLMOS_WEBHOOK": hook.url, "LLMOS_ALERT": "{}"}) == 0
    assert capsys.readouterr().out == ""


def test_it_tries_three_times(hook: Hook) -> None:
    hook.statuses = [503, 503, 204]
    assert _deliver(hook.url) == ("", [0.5, 1.0]) and len(hook.got) == 3
    hook.statuses = [404]
    assert _deliver(hook.url) == ("it answered 404 Not Found", [0.5, 1.0, 2.0]) and len(hook.got) == 6


def test_redirects_are_not_followed(hook: Hook) -> None:
    hook.statuses = [302]
    assert _deliver(hook.url, 0.4)[0].startswith("it answered 302") and len(hook.got) == 1


def test_a_server_that_is_not_there_or_speaks_no_tls_is_said(hook: Hook) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert "ConnectionRefusedError" in webhook.send(f"http://127.0.0.1:{port}", b"{}", 1.0)
    assert "SSL" in webhook.send(hook.url.replace("http:", "https:"), b"{}", 1.0)
    assert webhook.send("http://127.0.0.1:99999", b"{}", 1.0) != ""


def test_a_server_that_never_answers_costs_no_more_than_its_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "TimeoutError" in webhook.send(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"{}", 0.05)

"""What servers answer, as typed errors; whom a key is sent to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fake_hub import TOKEN, hub
from llmos.drivers.filesystems.models.bring.web import answer, blocks, get_json
from llmos.syscalls.errors import BadArgument, Denied, Exists, LlmosError, NoSpace, NotFound, Unavailable

KEY = {"Authorization": f"Bearer {TOKEN}"}


class Says(BaseHTTPRequestHandler):
    """Answers /STATUS with that status and the error's message, /STATUS/TEXT with that text."""

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        _, status, *text = self.path.split("/")
        body = text[0].encode() if text else json.dumps({"error": {"message": f"said {status}"}}).encode()
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        if status == "302":
            self.send_header("Location", "ftp://elsewhere/x")
        if status == "206":
            self.send_header("Content-Range", "bytes 7-9/10")
        self.send_header("Retry-After", "3")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Says)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Denied), (403, Denied), (404, NotFound), (409, Exists), (413, NoSpace), (507, NoSpace),
        (503, Unavailable), (418, BadArgument), (302, BadArgument),
    ],
)  # fmt: skip
def test_statuses_are_typed_errors(url: str, status: int, kind: type[LlmosError]) -> None:
    with pytest.raises(kind) as raised, answer(f"{url}/{status}", {}):
        pass
    if status == 503:
        assert isinstance(raised.value, Unavailable) and raised.value.retry_after_ms == 3000
    assert status == 302 or f"said {status}" in str(raised.value)


def test_no_server_and_no_json_are_unavailable(url: str) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        get_json("http://127.0.0.1:1/x", {})
    for text in ("[1]", "nonsense"):
        with pytest.raises(Unavailable, match="JSON object"):
            get_json(f"{url}/200/{text}", {})


def test_another_range_than_was_asked_is_refused(url: str) -> None:
    with pytest.raises(Unavailable, match="another range"):
        list(blocks(f"{url}/206/abc", {}, 0, 3))


def test_a_key_is_not_sent_to_another_host() -> None:
    files = {"model.safetensors": b"0123456789"}
    with hub(files) as network, hub(files, redirect=network.url, gated=True) as fake:
        place = f"{fake.url}/acme/fox/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors"
        assert b"".join(blocks(place, KEY, 2, 5)) == b"234"
        assert fake.seen[0][2]["Authorization"] == KEY["Authorization"]
        assert "Authorization" not in network.seen[0][2] and network.seen[0][2]["Range"] == "bytes=2-4"
        with pytest.raises(Denied):
            list(blocks(place, {}, 2, 5))

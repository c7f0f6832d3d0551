"""A small hub on this machine: the API and the files of `huggingface_hub`, with ranges, keys, redirects and faults."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"


@dataclass
class FakeHub:
    """What it serves, and what it saw. `breaks` maps a file to how many bytes of an answer come before it is cut."""

    files: dict[str, bytes]
    repository: str = "acme/fox"
    large: frozenset[str] = frozenset({"model.safetensors"})
    gated: bool = False
    ranges: bool = True
    breaks: dict[str, int] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    """After so many bytes of a file the answer waits for `go`."""
    go: threading.Event = field(default_factory=threading.Event)
    promised: dict[str, bytes] = field(default_factory=dict)
    """What the API promises of a file, where that is not its content."""
    redirect: str = ""
    """Address that large files are fetched from, as from a content network."""
    card: dict[str, Any] = field(default_factory=lambda: {"license": "mit"})
    sent: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def siblings(self) -> list[dict[str, Any]]:
        found = []
        for name, content in self.files.items():
            content = self.promised.get(name, content)
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            about: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
            if name in self.large:
                about["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            found.append(about)
        return found

    @property
    def fetched(self) -> int:
        """Bytes of files that were sent."""
        return sum(self.sent.values())


@contextmanager
def hub(files: Mapping[str, bytes], **how: Any) -> Iterator[FakeHub]:
    fake = FakeHub(dict(files), **how)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            with fake.lock:
                fake.seen.append((self.command, self.path, dict(self.headers)))
            path = self.path.partition("?")[0]
            if fake.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}" and not path.startswith("/cdn/"):
                self._json(401, {"error": "Access to this model is restricted"})
            elif (m := re.fullmatch(rf"/api/models/{fake.repository}/revision/(.+)", path)) is not None:
                if m[1] in ("main", "v2", COMMIT):
                    self._json(200, {"sha": COMMIT, "siblings": fake.siblings(), "cardData": fake.card})
                else:
                    self._json(404, {"error": f"Invalid rev id: {m[1]}"})
            elif (m := re.fullmatch(rf"/(?:{fake.repository}/resolve/{COMMIT}|cdn)/(.+)", path)) is not None:
                self._file(m[1], path.startswith("/cdn/"))
            else:
                self._json(404, {"error": "Repository not found"})

        def _json(self, status: int, value: Mapping[str, Any]) -> None:
            self._answer(status, json.dumps(value).encode())

        def _file(self, name: str, direct: bool) -> None:
            content = fake.files.get(name)
            if content is None:
                return self._json(404, {"error": "Entry not found"})
            if fake.redirect and name in fake.large and not direct:
                self.send_response(302)
                self.send_header("Location", f"{fake.redirect}/cdn/{name}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted is None or not fake.ranges:
                return self._answer(200, content, name)
            start, end = int(wanted[1]), int(wanted[2])
            part = content[start : end + 1]
            return self._answer(206, part, name, f"bytes {start}-{start + len(part) - 1}/{len(content)}")

        def _answer(self, status: int, body: bytes, name: str = "", place: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if place:
                self.send_header("Content-Range", place)
            self.end_headers()
            cut, hold = fake.breaks.get(name), fake.holds.get(name)
            sent = body if cut is None else body[:cut]
            try:
                if hold is not None:
                    self._send(name, sent[:hold])
                    fake.go.wait(60)
                self._send(name, sent[hold or 0 :])
            except OSError:  # whoever asked is gone
                self.close_connection = True
            if cut is not None:
                self.close_connection = True

        def _send(self, name: str, piece: bytes) -> None:
            """Counted before whoever asked can have it all."""
            self._count(name, len(piece))
            try:
                self.wfile.write(piece)
            except OSError:
                self._count(name, -len(piece))
                raise

        def _count(self, name: str, bytes: int) -> None:
            if name:
                with fake.lock:
                    fake.sent[name] = fake.sent.get(name, 0) + bytes

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="fake hub")
    thread.start()
    try:
        yield fake
    finally:
        fake.go.set()
        server.shutdown()
        thread.join()
        server.server_close()

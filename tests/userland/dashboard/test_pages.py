"""The routes of the dashboard: what is served, with which headers, and signing in."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from llmos.userland.dashboard import pages

FOLDER = Path(pages.__file__).parent
SCRIPTS = sorted((FOLDER / "static").glob("*.js"))
KEY = "llmos_good_key"

VENDORED = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
"""SHA-256 of the files of uPlot 1.6.32, as in its npm package."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def ask() -> Ask:
    """A request straight to the app, as a server would hand it on: no socket, no thread."""

    async def sign_in(request: Request, key: str) -> bool:
        return key == KEY

    app = Starlette(routes=pages.routes(sign_in))

    def send(method: str, path: str, body: bytes = b"", scheme: str = "http", **headers: str) -> Answer:
        return asyncio.run(_request(app, method, path, body, scheme, headers))

    return send


async def _request(app: Any, method: str, path: str, body: bytes, scheme: str, headers: Mapping[str, str]) -> Answer:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "scheme": scheme, "headers": [(b"host", b"localhost"), *given], "http_version": "1.1",
        "server": ("localhost", 80),
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:]))


def login(ask: Ask, key: object, scheme: str = "http", **headers: str) -> Answer:
    return ask("POST", "/dashboard/login", json.dumps({"key": key}).encode(), scheme, **headers)


OURS = {"x_llmos_dashboard": "1"}


def test_the_root_leads_to_the_dashboard(ask: Ask) -> None:
    found = ask("GET", "/")
    assert (found.status, found.headers["location"]) == (302, "/dashboard")


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/login"])
def test_the_page_is_served_with_headers_that_keep_others_out(ask: Ask, path: str) -> None:
    found = ask("GET", path)
    assert found.status == 200
    assert found.body.startswith(b"<!doctype html>")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["x-frame-options"] == "DENY"
    assert found.headers["referrer-policy"] == "no-referrer"
    policy = dict(part.split(" ", 1) for part in found.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in found.headers["content-security-policy"]


def test_every_file_that_a_page_names_is_served_with_its_type(ask: Ask) -> None:
    html = (FOLDER / "static" / "index.html").read_text()
    named = set(re.findall(r'(?:src|href)="(/[^"]+)"', html))
    for path in SCRIPTS:
        named |= {f"/dashboard/static/{name}" for name in re.findall(r"from '\./([\w.]+)'", path.read_text())}
    assert len(named) > 20
    for path in named:
        found = ask("GET", path)
        assert found.status == 200, path
        kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[path.rpartition(".")[2]]
        assert found.headers["content-type"].startswith(kind)
        assert found.headers["x-content-type-options"] == "nosniff"


def test_nothing_is_fetched_from_elsewhere_and_nothing_is_inline() -> None:
    html = (FOLDER / "static" / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=|https?://", html)
    for path in [*SCRIPTS, *(FOLDER / "static").glob("*.css")]:
        outside = re.findall(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text())
        assert not outside, path.name


def test_a_file_that_is_known_is_not_sent_again(ask: Ask) -> None:
    first = ask("GET", "/dashboard/static/app.js")
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    again = ask("GET", "/dashboard/static/app.js", if_none_match=f'"other", W/{tag}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert ask("GET", "/dashboard/static/app.js", if_none_match='"other"').status == 200


def test_head_answers_without_a_body(ask: Ask) -> None:
    assert ask("HEAD", "/dashboard").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "../pages.py", "..%2fpages.py", "vendor/../../pages.py", "/etc/passwd", "", ".", "vendor/uplot/LICENSE",
        "vendor/uplot/README.md", "index.html/", "app.js\x00", "App.js",
    ],
)  # fmt: skip
def test_what_is_not_on_the_list_is_not_served(ask: Ask, path: str) -> None:
    found = ask("GET", f"/dashboard/static/{path}")
    assert found.status == 404
    assert found.error["code"] == "not_found"


def test_a_file_that_comes_later_is_not_served(tmp_path: Path) -> None:
    for folder in ("static", "vendor/x"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "static" / "a.js").write_text("1")
    (tmp_path / "static" / "notes.md").write_text("1")
    (tmp_path / "vendor" / "x" / "b.css").write_text("1")
    assert set(pages.read_assets(tmp_path)) == {"a.js", "vendor/x/b.css"}


def test_a_good_key_becomes_a_cookie_that_scripts_cannot_read(ask: Ask) -> None:
    found = login(ask, KEY, **OURS)
    assert (found.status, found.body) == (204, b"")
    cookie = found.headers["set-cookie"]
    assert cookie.startswith(f"llmos_key={KEY}; ")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert "Secure" in login(ask, KEY, "https", **OURS).headers["set-cookie"]


def test_a_wrong_key_gets_no_cookie(ask: Ask) -> None:
    found = login(ask, "llmos_other", **OURS)
    assert found.status == 401
    assert found.error["code"] == "invalid_api_key"
    assert "llmos keys create" in found.error["message"]
    assert "set-cookie" not in found.headers


@pytest.mark.parametrize(
    "headers",
    [{}, {"x_llmos_dashboard": "0"}, {**OURS, "sec_fetch_site": "cross-site"}, {**OURS, "sec_fetch_site": "none"}],
)
@pytest.mark.parametrize("path", ["/dashboard/login", "/dashboard/logout"])
def test_another_site_can_neither_sign_in_nor_out(ask: Ask, path: str, headers: dict[str, str]) -> None:
    found = ask("POST", path, json.dumps({"key": KEY}).encode(), **headers)
    assert found.status == 403
    assert "set-cookie" not in found.headers


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"key": 1}', b'{"key": ""}', b'{"key": "a b"}', b'{"key": "a;b"}', b'{"key": "\\u00e4"}',
     b'{"key": "a\\r\\nset-cookie: x"}', b"\xff", b'{"key": "' + b"a" * 5000 + b'"}'],
)  # fmt: skip
def test_what_can_be_no_key_is_refused_before_it_is_looked_up(ask: Ask, body: bytes) -> None:
    found = ask("POST", "/dashboard/login", body, **OURS)
    assert found.status == 400
    assert found.error["type"] == "invalid_request_error"


def test_signing_out_removes_the_cookie(ask: Ask) -> None:
    found = ask("POST", "/dashboard/logout", **OURS)
    assert found.status == 204
    assert "Max-Age=0" in found.headers["set-cookie"]


@pytest.mark.parametrize("name", VENDORED)
def test_what_others_wrote_is_unchanged(name: str) -> None:
    found = hashlib.sha256((FOLDER / "vendor" / "uplot" / name).read_bytes()).hexdigest()
    assert found == VENDORED[name]


def test_what_others_wrote_is_listed_with_its_licence() -> None:
    text = (FOLDER.parents[1] / "docs" / "third-party.md").read_text()
    for vendored in (FOLDER / "vendor").iterdir():
        assert f"userland/dashboard/vendor/{vendored.name}" in text
        assert (vendored / "LICENSE").exists()

"""The routes of the dashboard: one page, its files, and signing in with a key.

The page holds no data: everything it shows it fetches from the gateway with the key of the one who looks. The files are
read once, at start; what was not there then is not served, so no path leaves the folder. The key is kept in a cookie
that scripts cannot read (HttpOnly) and that other sites cannot send (SameSite=Strict).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

SignIn = Callable[[Request, str], Awaitable[bool]]
"""Whether a key, as text, may sign in."""

COOKIE = "llmos_key"
MARK = "x-llmos-dashboard"
"""A header that only a script of the same origin can set without being asked for permission first."""

KEY_BYTES = 4096
"""The longest body of a sign-in."""

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
"""What is served, by suffix; other files of the folders (licences, notes) are not."""

POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy: nothing from elsewhere, no inline script or style, no frame around it."""

HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class Asset:
    """One file as it is served. `tag` is its ETag."""

    body: bytes
    media_type: str
    tag: str


def read_assets(folder: Path) -> dict[str, Asset]:
    """The files of `static/` by their path in it, and those of `vendor/` as `vendor/...`."""
    found = {}
    for base, prefix in ((folder / "static", ""), (folder / "vendor", "vendor/")):
        for path in sorted(base.rglob("*")):
            if path.suffix in TYPES and path.is_file():
                body = path.read_bytes()
                tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
                found[prefix + path.relative_to(base).as_posix()] = Asset(body, TYPES[path.suffix], tag)
    return found


def routes(sign_in: SignIn) -> list[BaseRoute]:
    """All routes of the dashboard. None of them tells anything about the system, so none of them needs a key."""
    assets = read_assets(Path(__file__).parent)

    async def home(request: Request) -> Response:
        return RedirectResponse("/dashboard", 302, headers=dict(HEADERS))

    async def page(request: Request) -> Response:
        return _serve(request, assets["index.html"])

    async def static(request: Request) -> Response:
        asset = assets.get(request.path_params["path"])
        if asset is None:
            return _error(404, "not_found_error", "not_found", "the dashboard has no such file")
        return _serve(request, asset)

    async def login(request: Request) -> Response:
        if not _own_script(request):
            return _error(403, "permission_error", "permission_denied", "sign in from the dashboard itself")
        key = _key(await _body(request))
        if key is None:
            text = 'the body of a sign-in is {"key": "..."}'
            return _error(400, "invalid_request_error", "invalid_body", text)
        if not await sign_in(request, key):
            text = "this key is unknown, expired or revoked; make one with: llmos keys create NAME"
            return _error(401, "authentication_error", "invalid_api_key", text)
        answer = Response(status_code=204, headers=dict(HEADERS))
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, key, path="/", secure=secure, httponly=True, samesite="strict")
        return answer

    async def logout(request: Request) -> Response:
        if not _own_script(request):
            return _error(403, "permission_error", "permission_denied", "sign out from the dashboard itself")
        answer = Response(status_code=204, headers=dict(HEADERS))
        secure = request.url.scheme == "https"
        answer.delete_cookie(COOKIE, path="/", secure=secure, httponly=True, samesite="strict")
        return answer

    return [
        Route("/", home, methods=["GET"]),
        Route("/dashboard", page, methods=["GET"]),
        Route("/dashboard/login", page, methods=["GET"]),
        Route("/dashboard/login", login, methods=["POST"]),
        Route("/dashboard/logout", logout, methods=["POST"]),
        Route("/dashboard/static/{path:path}", static, methods=["GET"]),
    ]


def _serve(request: Request, asset: Asset) -> Response:
    headers = {**HEADERS, "etag": asset.tag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if asset.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


def _own_script(request: Request) -> bool:
    """Whether a script of this very page asks, rather than a form or script of another site."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    return request.headers.get(MARK) == "1" and site == "same-origin"


async def _body(request: Request) -> bytes:
    """At most KEY_BYTES of the body; a longer one is cut, and so is no valid JSON any more."""
    got = b""
    async for part in request.stream():
        got += part
        if len(got) > KEY_BYTES:
            break
    return got[:KEY_BYTES]


def _key(body: bytes) -> str | None:
    try:
        given: Any = json.loads(body)
    except ValueError:
        return None
    key = given.get("key") if isinstance(given, dict) else None
    printable = isinstance(key, str) and key.isascii() and key.isprintable() and not set(key) & set(' ";,\\')
    return key if printable and key else None


def _error(status: int, kind: str, code: str, message: str) -> Response:
    error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code, "fields": {}, "reasons": []}
    body = json.dumps({"error": error})
    return Response(body, status, media_type="application/json", headers=dict(HEADERS))

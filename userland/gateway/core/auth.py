"""From the head of a request to the caller behind it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from .caller import Caller
from .errors import HttpError
from .keys import KeyInfo
from .settings import Address, Settings

COOKIE = "llmos_key"
"""The dashboard's cookie with the key."""
DASHBOARD = "x-llmos-dashboard"
"""Header without which a cookie is not taken for anything but reading: other sites cannot make a browser send it."""

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_READING = frozenset({"GET", "HEAD"})


def key_text(method: str, headers: Mapping[str, str]) -> str | None:
    """The key that a request brings: `Authorization: Bearer`, `x-api-key`, or the dashboard's cookie; None without.

    Args:
        headers: by lower-case name.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if key := headers.get("x-api-key"):
        return key
    if not (cookie := _cookie(headers.get("cookie", ""))):
        return None
    site = headers.get("sec-fetch-site", "same-origin")
    ours = site == "same-origin" or (site == "none" and method in _READING)
    return cookie if ours and (method in _READING or headers.get(DASHBOARD) == "1") else None


def _cookie(text: str) -> str:
    for part in text.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def caller_from(key: KeyInfo) -> Caller:
    """The caller behind a key. A key is a tenant; the scope `admin` sees everybody's."""
    tenant = "" if "admin" in key.scopes else f"key-{key.id}"
    return Caller(key.id, key.user, tenant, key.scopes, key.models, key.limits)


def anonymous(settings: Settings) -> Caller:
    """A caller of this machine without a key."""
    scopes = frozenset[str](settings.anonymous_scopes)
    return Caller("", "local", "" if "admin" in scopes else "local", scopes)


def is_local(peer: str | None, host: str, listens: Address, names: Iterable[str]) -> bool:
    """Whether a request without a key comes from this machine, and from no web page that a browser fooled.

    A page of another site can make a browser call 127.0.0.1 under its own name (DNS rebinding): so the name it calls
    must be one of this machine's.

    Args:
        peer: address of the other end; None for a Unix socket.
        host: the header Host.
        listens: the address the gateway listens on.
        names: further names of this machine.
    """
    if peer is not None and not _is_loopback(peer):
        return False
    name = _host_name(host)
    return name in _LOCAL_NAMES or (name != "" and name in {listens.host, *names}) or (peer is None and not name)


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of another site asks (Fetch metadata; a plain GET has no Origin)."""
    if headers.get("sec-fetch-site", "") in ("cross-site", "same-site"):
        return True
    origin = headers.get("origin", "")
    return origin != "" and origin.partition("://")[2] != headers.get("host", "")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """`[::1]:80` is `::1`, `LocalHost:80` is `localhost`."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def no_key() -> HttpError:
    """401 for a request without a key."""
    text = "this needs a key: send `Authorization: Bearer KEY`; `llmos keys create NAME` makes one"
    return _unauthorized(text)


def wrong_key() -> HttpError:
    """401 for a key that is unknown, revoked or expired: which of them is not told."""
    return _unauthorized("this key is unknown, revoked or expired; `llmos keys list` shows those there are")


def _unauthorized(text: str) -> HttpError:
    headers = {"WWW-Authenticate": "Bearer"}
    return HttpError(401, "authentication_error", "invalid_api_key", text, headers=headers)

"""From the head of a request to its caller."""

from __future__ import annotations

import pytest

from llmos.userland.gateway.core.auth import anonymous, caller_from, is_local, key_text, no_key, wrong_key
from llmos.userland.gateway.core.caller import KeyLimits
from llmos.userland.gateway.core.keys import KeyInfo
from llmos.userland.gateway.core.settings import Settings, address_of

COOKIE = {"cookie": "theme=dark; llmos_key=k3; x=y"}


@pytest.mark.parametrize(
    ("method", "headers", "text"),
    [
        ("POST", {"authorization": "Bearer k1"}, "k1"),
        ("POST", {"authorization": "bearer  k1 "}, "k1"),
        ("POST", {"authorization": "Basic k1"}, None),
        ("POST", {"authorization": "Bearer "}, None),
        ("POST", {"x-api-key": "k2"}, "k2"),
        ("POST", {"authorization": "Bearer k1", "x-api-key": "k2"}, "k1"),
        ("POST", {}, None),
        ("GET", COOKIE, "k3"),
        ("GET", {"cookie": "other=1"}, None),
        ("GET", {**COOKIE, "sec-fetch-site": "none"}, "k3"),
        ("GET", {**COOKIE, "sec-fetch-site": "cross-site"}, None),
        ("POST", COOKIE, None),
        ("POST", {**COOKIE, "x-llmos-dashboard": "1"}, "k3"),
        ("POST", {**COOKIE, "x-llmos-dashboard": "1", "sec-fetch-site": "same-origin"}, "k3"),
        ("POST", {**COOKIE, "x-llmos-dashboard": "1", "sec-fetch-site": "same-site"}, None),
        ("POST", {**COOKIE, "x-llmos-dashboard": "1", "sec-fetch-site": "none"}, None),
    ],
)
def test_where_a_key_stands(method: str, headers: dict[str, str], text: str | None) -> None:
    assert key_text(method, headers) == text


@pytest.mark.parametrize(
    ("peer", "host", "local"),
    [
        ("127.0.0.1", "localhost:7411", True),
        ("127.0.0.1", "127.0.0.1:7411", True),
        ("127.9.9.9", "LocalHost", True),
        ("::1", "[::1]:7411", True),
        ("127.0.0.1", "mine.local:7411", True),
        ("127.0.0.1", "bound.example", True),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "", False),
        ("10.0.0.7", "localhost", False),
        ("nonsense", "localhost", False),
        (None, "", True),
        (None, "localhost", True),
        (None, "evil.example", False),
    ],
)
def test_who_is_of_this_machine(peer: str | None, host: str, local: bool) -> None:
    assert is_local(peer, host, address_of("bound.example:7411"), ["mine.local"]) is local


def key(*scopes: str) -> KeyInfo:
    return KeyInfo("abc", "n", "ada", frozenset(scopes), ("tiny",), KeyLimits(concurrent=2), 0.0, None, None, None)


def test_a_key_is_a_tenant_and_an_admin_is_none() -> None:
    caller = caller_from(key("infer"))
    assert (caller.key, caller.user, caller.tenant, caller.models) == ("abc", "ada", "key-abc", ("tiny",))
    assert caller.limits.concurrent == 2 and caller_from(key("admin")).tenant == ""


def test_who_comes_without_a_key_has_a_tenant_too() -> None:
    caller = anonymous(Settings())
    assert caller.tenant == "local" and caller.scopes == {"infer", "read"} and not caller.key
    assert anonymous(Settings(anonymous_scopes=["admin"])).tenant == ""


def test_401_says_how_and_not_why() -> None:
    for error in (no_key(), wrong_key()):
        assert error.status == 401 and error.code == "invalid_api_key" and error.headers["WWW-Authenticate"] == "Bearer"

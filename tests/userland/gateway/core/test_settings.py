"""The settings of the gateway and its addresses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from llmos.userland.gateway.core.settings import Address, BadSettings, Settings, address_of, settings_of


def test_everything_has_a_default_that_serves_this_machine_alone() -> None:
    made = settings_of({})
    assert made == Settings() and made.anonymous == "no" and made.origins == []
    assert address_of(made.http).local and made.anonymous_scopes == ["infer", "read"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"htp": "x"}, "unknown key gateway.config.htp; did you mean 'http'?"),
        ({"http": "here"}, "HOST:PORT"),
        ({"http": "127.0.0.1:99999"}, "HOST:PORT"),
        ({"http": ":80"}, "HOST:PORT"),
        ({"anonymous": "yes"}, "anonymous"),
        ({"anonymous_scopes": ["fly"]}, "anonymous_scopes"),
        ({"body_bytes": 0}, "body_bytes"),
        ({"certificate": "x.pem"}, "private_key"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, object], said: str) -> None:
    with pytest.raises(BadSettings) as raised:
        settings_of(table)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "address", "url", "local"),
    [
        ("127.0.0.1:80", Address(host="127.0.0.1", port=80), "http://127.0.0.1:80", True),
        ("localhost:0", Address(host="localhost", port=0), "http://localhost:0", True),
        ("[::1]:80", Address(host="::1", port=80), "http://[::1]:80", True),
        ("0.0.0.0:80", Address(host="0.0.0.0", port=80), "http://0.0.0.0:80", False),
        ("box:80", Address(host="box", port=80), "http://box:80", False),
        ("unix:/run/x.sock", Address(path="/run/x.sock"), "unix:/run/x.sock", True),
    ],
)
def test_addresses(text: str, address: Address, url: str, local: bool) -> None:
    found = address_of(text)
    assert found == address and found.url() == url and found.local is local


def test_https_is_told_in_the_url() -> None:
    assert address_of("box:443").url(secure=True) == "https://box:443"


def test_the_page_names_every_setting_with_its_default(root: Path) -> None:
    block = re.search(r"```toml\n(\[gateway\].*?)```", (root / "docs/http.md").read_text(), re.S)
    assert block is not None
    table = tomllib.loads(block[1])["gateway"]
    told = settings_of({"http": table["http"], **table["config"]})
    assert {"http", *table["config"]} == set(Settings.__struct_fields__)
    assert msgspec.structs.replace(told, aliases={}) == Settings()

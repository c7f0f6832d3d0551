"""keys: create, list, revoke, without a kernel."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmos.userland.gateway.core.keys import KeyStore, database


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOS_HOME", str(tmp_path))
    return tmp_path


def test_a_key_is_printed_once_with_how_to_use_it(llmos: Any, home: Path) -> None:
    ran = llmos("keys create laptop --user anna")
    text = ran.out.strip()
    with closing(KeyStore(database(home))) as store:
        found = store.find(text)
    assert found is not None and (found.name, found.user) == ("laptop", "anna")
    assert "only time" in ran.err and "files infer read" in ran.err
    assert f"OPENAI_BASE_URL=http://127.0.0.1:7411/v1 OPENAI_API_KEY={text}" in ran.err
    assert f"http://127.0.0.1:7411/dashboard#key={text}" in ran.err
    listed = llmos("keys list")
    assert text not in listed.out + listed.err and found.id in listed.out and "valid" in listed.out


def test_everything_can_be_said(llmos: Any, home: Path) -> None:
    line = (
        "keys create ci --json --user bert --scope infer --scope load --model 'tiny*' --model org/x --expires 2h "
        "--tokens-per-minute 1000 --requests-per-minute 60 --concurrent 4"
    )
    made = llmos(line).json
    assert made["key"].startswith(f"llmos_{made['id']}_")
    assert made["scopes"] == ["infer", "load"] and made["models"] == ["tiny*", "org/x"]
    assert abs(made["expires"] - time.time() - 7200) < 60
    assert made["limits"] == {
        "tokens_per_minute": 1000, "requests_per_minute": 60, "concurrent": 4, "priority_max": 100,
    }  # fmt: skip
    assert "hash" not in made
    (listed,) = llmos("keys list --json").json
    assert listed == {name: value for name, value in made.items() if name != "key"}
    table = llmos("keys list").out
    assert "1000 tokens/min, 60 requests/min, 4 at a time" in table and "tiny* org/x" in table


def test_for_ever_is_no_end(llmos: Any, home: Path) -> None:
    assert llmos("keys create ci --json --expires forever").json["expires"] is None


def test_a_revoked_key_is_shown_as_such(llmos: Any, home: Path) -> None:
    assert llmos("keys list").out == "there are no keys; try: keys create NAME\n"
    key = llmos("keys create ci").out.strip()
    assert "is revoked" in llmos("keys revoke ci").out
    assert "revoked" in llmos("keys list").out
    assert llmos(f"keys revoke {key.split('_')[1]} --json").json["state"] == "revoked"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("keys create", "say keys create NAME"), ("keys revoke", "say keys revoke NAME"),
        ("keys revoke nobody", "no key is called 'nobody'"), ("keys create a --scope everything", "no scope"),
        ("keys create a --expires 0s", "before it is made"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(llmos: Any, home: Path, line: str, text: str) -> None:
    ran = llmos(line)
    assert ran.status == 1 and text in ran.err and ran.out == ""

"""Names of files; the routes are in `test_client` and `test_routes`."""

from __future__ import annotations

import pytest

from llmos.userland.gateway.core.caller import Caller
from llmos.userland.gateway.core.store import StoredFile
from llmos.userland.gateway.openai.files import safe_name, shown


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("data.jsonl", "data.jsonl"), ("../../etc/passwd", "passwd"), ("C:\\x\\y z.txt", "y_z.txt"), ("", "file"),
        ("..", "file"), ("a\0b\nc", "a_b_c"), (".hidden", "hidden"), ("x" * 300, "x" * 100), ("日本.txt", "日本.txt"),
    ],
)  # fmt: skip
def test_safe_names(given: str, name: str) -> None:
    assert safe_name(given) == name


def test_what_is_shown() -> None:
    caller = Caller("k", "u", "key-k", frozenset({"files"}))
    made = shown(StoredFile("file-1", "k", "x.txt", "batch", 3, "/home/keys/k/x.txt", 12.7, "ab"), caller)
    assert made["llmos"]["path"] == "/home/me/x.txt"
    assert (made["object"], made["created_at"], made["status"], made["bytes"]) == ("file", 12, "processed", 3)

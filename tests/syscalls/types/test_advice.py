"""Advice and alerts travel as they are, and an older client ignores what it does not know."""

from __future__ import annotations

import msgspec

from llmos.syscalls.types import Advice, Alert


def test_they_come_back_as_they_were_and_unknown_fields_are_ignored() -> None:
    advice = Advice(code="pin", about="m-1", text="t", evidence={"n": 1, "what": "x"}, gain={"seconds": -1.5})
    alert = Alert(rule="hot", about="", severity="error", text="t", value=2.5, limit=1.0, since=3.0)
    for value in (advice, alert):
        plain = msgspec.to_builtins(value)
        assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
        assert msgspec.convert({**plain, "later": 1}, type(value)) == value
    assert (advice.name, advice.action) == ("", "")

"""Durations as clients write them."""

from __future__ import annotations

import pytest

from llmos.syscalls.errors import BadArgument
from llmos.userland.gateway.core.durations import seconds_of


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None), (0, 0.0), (2.5, 2.5), (-1, -1.0), (-7, -1.0), ("300", 300.0), ("5m", 300.0), ("1h30m", 5400.0),
        ("500ms", 0.5), ("-1", -1.0), ("-5m", -1.0), (" 10s ", 10.0), ("2d", 172800.0),
    ],
)  # fmt: skip
def test_seconds(given: float | str | None, seconds: float | None) -> None:
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("given", ["", "soon", "5 m", "5x", "m5", "5m!", "1e30", "nan", "inf"])
def test_what_is_no_duration_is_refused(given: str) -> None:
    with pytest.raises(BadArgument) as raised:
        seconds_of(given, "ttl")
    assert raised.value.name == "ttl"

"""Durations as clients write them: seconds, or texts like `5m` and `1h30m`; -1 is for ever."""

from __future__ import annotations

import re

from llmos.syscalls.errors import BadArgument

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_MOST = 1e9


def seconds_of(value: float | str | None, name: str = "keep_alive") -> float | None:
    """Seconds; None stays None, and everything below 0 is -1.

    Raises:
        BadArgument: it is no duration.
    """
    if value is None:
        return None
    if isinstance(value, str):
        seconds = _parsed(value.strip())
        if seconds is None:
            raise BadArgument(
                f"{name} is {value[:40]!r}; expected seconds, or a text like 5m, 1h30m or -1", name=name,
                got=value[:40], want="a duration",
            )  # fmt: skip
    else:
        seconds = float(value)
    if not seconds <= _MOST:
        raise BadArgument(f"{name} is longer than {_MOST:g} seconds; -1 is for ever", name=name, got=str(value)[:40])
    return -1.0 if seconds < 0 else seconds


def _parsed(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    sign = -1.0 if text.startswith("-") else 1.0
    text = text.removeprefix("-")
    parts = _PART.findall(text)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != text:
        return None
    return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)

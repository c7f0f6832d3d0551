"""Figures for people: sizes, durations, ages."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from llmos.syscalls.errors import BadArgument

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes, as in `11.4 MiB`."""
    value = float(count)
    for unit in _UNITS[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def bytes_of(size: str) -> int:
    """Bytes from what people write: `4GiB`, `500 MB`, `2g` (GiB), `1024`. Raises BadArgument."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)\s*", size.lower())
    if found is None:
        raise BadArgument(f"{size!r} is not a size; write 4GiB or 500MB", name="size", got=size, want="4GiB or 500MB")
    number, unit, binary, byte = found.groups()
    base = 1000 if byte and not binary else 1024
    return int(float(number) * base ** " kmgt".index(unit or " "))


def count(number: float) -> str:
    """A large number, as in `5.8 M`."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.1f} {unit}"
    return f"{number:g}"


def several(number: int, noun: str) -> str:
    """A number and what it counts, as in `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """Seconds, as in `840 us`, `12 ms`, `3.2 s`, `4 m 10 s`, `2 h 5 m`, `3 d 4 h`."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds == 0:
        return "0 s"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def ago(at: float) -> str:
    """How long ago a time (seconds since the epoch) was; empty for never."""
    return duration(max(0.0, time.time() - at)) + " ago" if at else ""


def clock(at: float) -> str:
    """The time of day of a record."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def fields(values: Mapping[str, Any]) -> str:
    """`name=value` pairs on one line."""
    return " ".join(f"{name}={value}" for name, value in values.items() if value not in ("", None, [], {}))

"""Numbers as people read them."""

from __future__ import annotations

import math

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def size(count: float) -> str:
    """Bytes: `512 B`, `11.3 MiB`."""
    value = float(count)
    for unit in _SIZES[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_SIZES[-1]}"


def duration(seconds: float) -> str:
    """A span of time: `0.4 ms`, `3.2 s`, `5 min`, `2 h 10 min`."""
    if math.isinf(seconds):
        return "for ever"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms" if seconds else "0 s"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    left = round(seconds)
    parts = []
    for length, unit in _SPANS:
        if left >= length:
            parts.append(f"{left // length} {unit}")
            left %= length
    return " ".join(parts[:2])


def ago(at: float, now: float) -> str:
    """How long ago a time (seconds since the epoch) was."""
    return "" if not at else f"{duration(max(0.0, round(now - at, 1)))} ago"


def count(number: float) -> str:
    """A number of things: `950`, `12.3 k`, `7.2 M`."""
    value = float(number)
    for unit in ("", " k", " M", " G"):
        if abs(value) < 1000:
            return f"{value:.0f}{unit}" if not unit or abs(value) >= 100 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f} T"


def value(item: object) -> str:
    """A field of an object, for people."""
    if item is None or item == "":
        return "-"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.6g}"
    if isinstance(item, (list, tuple, set, frozenset)):
        return ", ".join(sorted(map(value, item)) if isinstance(item, (set, frozenset)) else map(value, item)) or "-"
    if isinstance(item, dict):
        return ", ".join(f"{name}={value(inner)}" for name, inner in item.items()) or "-"
    return str(item)

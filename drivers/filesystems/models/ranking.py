"""The order of what a search found, and the reason for each place in it. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SORTS = ("rank", "name", "size", "new", "speed", "quality")
EXACT, PREFIX, PAST = 1.0, 0.5, 0.1
"""What the whole name, its beginning, and the best measured speed or quality add to a match of words (0 to 1)."""


@dataclass(frozen=True)
class Candidate:
    """A version that passed the filters. `match` is how well its words fit, from 0."""

    id: int

    path: str
    version: str
    current: bool
    bytes: int
    created: str
    match: float = 0.0
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Values by device and name."""

    @property
    def short(self) -> str:
        return self.path.rpartition("/")[2]

    def best(self, name: str) -> tuple[float, str] | None:
        """The highest value of that name, and the device it was measured on."""
        found = [(values[name], device) for device, values in self.measured.items() if name in values]
        return max(found, default=None)


def ranked(found: Sequence[Candidate], query: str, sort: str) -> list[tuple[float, Candidate]]:
    """Scores and candidates, best first. Without words, or with another sort, the order they come in is kept."""
    strongest = max((candidate.match for candidate in found), default=0.0) or 1.0
    speeds = _sorted(found, "tokens_per_s")
    qualities = _sorted(found, "quality")
    hits = []
    for candidate in found if query else ():
        score = candidate.match / strongest + _by_name(candidate, query)[0]
        score += PAST * (_place(candidate, "tokens_per_s", speeds) + _place(candidate, "quality", qualities))
        hits.append((round(score, 4), candidate))
    if not query:
        return [(0.0, candidate) for candidate in found]
    if sort == "rank":
        hits.sort(key=lambda hit: hit[1].path)
        hits.sort(key=lambda hit: hit[1].created, reverse=True)
        hits.sort(key=lambda hit: -hit[0])
    return hits


def reason(candidate: Candidate, query: str, sort: str, asked: Sequence[str], places: Mapping[str, str]) -> str:
    """Why a candidate stands where it does: `asked` are the filters that it passed, `places` where each word was."""
    _, called = _by_name(candidate, query)
    parts = [called] if called else [f"{_listed(words)} in its {place}" for place, words in _by_place(places)]
    parts += asked
    parts.append(size_text(candidate.bytes))
    if sort == "new" and candidate.created:
        parts.append(f"stored {candidate.created[:10]}")
    speed, quality = candidate.best("tokens_per_s"), candidate.best("quality")
    if speed is not None:
        parts.append(f"{speed[0]:.3g} tokens/s measured on {speed[1]}")
    if quality is not None:
        parts.append(f"quality {quality[0]:.3g}")
    return "; ".join(parts)


def _by_name(candidate: Candidate, query: str) -> tuple[float, str]:
    wanted = "-".join(query.casefold().split())
    names = (candidate.short.casefold(), candidate.path.casefold().lstrip("/"))
    if wanted and wanted in names:
        return EXACT, f'its name is "{query}"'
    if wanted and any(name.startswith(wanted) for name in names):
        return PREFIX, f'its name starts with "{query}"'
    return 0.0, ""


def _by_place(places: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for word, place in places.items():
        found.setdefault(place, []).append(word)
    return [*found.items()]


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _sorted(found: Sequence[Candidate], name: str) -> list[float]:
    return sorted(best[0] for candidate in found if (best := candidate.best(name)) is not None)


def _place(candidate: Candidate, name: str, values: Sequence[float]) -> float:
    """From just above 0 for the lowest of these values to 1 for the highest; 0 where nothing was measured."""
    best = candidate.best(name)
    return 0.0 if best is None else (bisect_left(values, best[0]) + 1) / len(values)


def size_text(count: int) -> str:
    """Bytes for people, as in `1.5 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"

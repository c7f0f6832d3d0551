"""What is said and when, as lines that can be read along: SubRip (.srt) and WebVTT (W3C)."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_S = 7.0
LONGEST_TEXT = 84
"""Two lines of 42 letters, as subtitles usually have."""
PAUSE_S = 0.7
"""Who is silent for longer has ended a line."""

Timed = tuple[float, float, str]
"""Seconds from the start, and what is said between them."""


def lines_of(words: Sequence[Timed]) -> list[Timed]:
    """Words as lines: a new one after a pause, and where one would be too long to read or to stand."""
    lines: list[Timed] = []
    for start, end, word in words:
        if lines:
            first, last, text = lines[-1]
            longer = f"{text} {word.strip()}"
            if start - last <= PAUSE_S and end - first <= LONGEST_S and len(longer) <= LONGEST_TEXT:
                lines[-1] = (first, end, longer)
                continue
        lines.append((start, end, word.strip()))
    return lines


def subtitles(segments: Sequence[Timed], form: str) -> str:
    """A file of the form `srt` or `vtt`."""
    comma = "," if form == "srt" else "."
    blocks = [] if form == "srt" else ["WEBVTT"]
    for at, (start, end, text) in enumerate(segments, 1):
        line = f"{_clock(start, comma)} --> {_clock(end, comma)}\n{text.strip()}"
        blocks.append(f"{at}\n{line}" if form == "srt" else line)
    return "\n\n".join(blocks) + "\n"


def _clock(seconds: float, comma: str) -> str:
    whole = round(seconds * 1000)
    minutes, milliseconds = divmod(whole, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{comma}{milliseconds % 1000:03}"

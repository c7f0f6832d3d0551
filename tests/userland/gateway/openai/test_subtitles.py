"""Lines of words, and files of lines."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmos.userland.gateway.openai.subtitles import LONGEST_S, LONGEST_TEXT, PAUSE_S, lines_of, subtitles


def test_subtitles() -> None:
    segments = [(0.0, 1.5, " Hello "), (3661.25, 3662.0, "you")]
    assert subtitles(segments, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello\n\n2\n01:01:01,250 --> 01:01:02,000\nyou\n"
    )
    assert subtitles(segments, "vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello")


def test_a_pause_ends_a_line() -> None:
    words = [(0.0, 0.2, "one"), (0.3, 0.5, "two"), (0.5 + 2 * PAUSE_S, 2.5, "three")]
    assert lines_of(words) == [(0.0, 0.5, "one two"), (0.5 + 2 * PAUSE_S, 2.5, "three")]


@given(st.lists(st.tuples(st.floats(0.05, 0.9), st.floats(0.0, 1.0), st.text("abc", min_size=1, max_size=12))))
def test_every_word_is_in_its_line_and_no_line_is_too_long(given: list[tuple[float, float, str]]) -> None:
    words, now = [], 0.0
    for length, pause, text in given:
        words.append((now, now + length, text))
        now += length + pause
    lines = lines_of(words)
    assert " ".join(text for *_, text in lines).split() == [text for *_, text in words]
    for start, end, text in lines:
        assert end - start <= LONGEST_S and len(text) <= LONGEST_TEXT
    assert all(before[1] <= after[0] for before, after in pairwise(lines))

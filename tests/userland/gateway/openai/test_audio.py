"""Subtitles; the routes are in `test_routes`."""

from __future__ import annotations

from llmos.syscalls.types import Inference, Transcript
from llmos.userland.gateway.openai.audio import _written, subtitles

SEGMENTS = [(0.0, 1.5, " Hello "), (3661.25, 3662.0, "you")]


def test_subtitles() -> None:
    assert subtitles(SEGMENTS, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello\n\n2\n01:01:01,250 --> 01:01:02,000\nyou\n"
    )
    assert subtitles(SEGMENTS, "vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello")


def test_the_forms_of_a_transcript() -> None:
    heard = Inference(id="r", task="asr", model_version="1", result=Transcript(text="Hello you", segments=SEGMENTS))
    assert _written(heard, "json").body == b'{"text":"Hello you"}' and _written(heard, "text").body == b"Hello you\n"
    verbose = _written(heard, "verbose_json").body
    assert b'"duration":3662.0' in verbose and b'"start":3661.25' in verbose
    assert _written(heard, "srt").media_type == "text/plain"

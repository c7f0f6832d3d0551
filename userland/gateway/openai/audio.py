"""`POST /v1/audio/transcriptions`: speech to text. What speaks or draws is not offered."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.syscalls.types import Audio, Inference, Parts, Transcript

from ..core.respond import json_response
from .orders import Order, run
from .uploads import file_of, form_of, text_of

TASK = "automatic-speech-recognition"
FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
_TIMED = ("verbose_json", "srt", "vtt")


async def transcriptions(request: Request) -> Response:
    """What is said in a sound, in its language."""
    return await _transcribe(request, translate=False)


async def translations(request: Request) -> Response:
    """What is said in a sound, in English."""
    return await _transcribe(request, translate=True)


async def _transcribe(request: Request, *, translate: bool) -> Response:
    async with form_of(request) as form:
        sound = await file_of(form).read()
        model, form_name = text_of(form, "model"), text_of(form, "response_format", "json")
        language = text_of(form, "language")
    if not model:
        raise BadArgument("the form names no model", name="model", want="a model")
    if form_name not in FORMATS:
        want = ", ".join(FORMATS)
        raise BadArgument(f"response_format is {form_name[:40]!r}; expected {want}", name="response_format", want=want)
    options: dict[str, Any] = {}
    if language:
        options["language"] = language
    if translate:
        options["translate"] = True
    if form_name in _TIMED:
        options["timestamps"] = "segment"
    content = Parts(parts=[Audio(data=sound)])
    order = Order(model=model, content=content, task=TASK, wanted_task=TASK, options=options)
    return _written(await run(request, order), form_name)


def _written(inference: Inference, form: str) -> Response:
    result = inference.result
    segments = result.segments if isinstance(result, Transcript) else []
    if form == "json":
        return json_response({"text": inference.text})
    if form == "text":
        return PlainTextResponse(inference.text + "\n")
    if form == "verbose_json":
        timed = [{"id": at, "start": a, "end": b, "text": text} for at, (a, b, text) in enumerate(segments)]
        end = segments[-1][1] if segments else 0.0
        return json_response({"task": "transcribe", "duration": end, "text": inference.text, "segments": timed})
    return PlainTextResponse(subtitles(segments, form))


def subtitles(segments: list[tuple[float, float, str]], form: str) -> str:
    """SubRip or WebVTT."""
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


async def speech(request: Request) -> Response:
    """Not offered."""
    raise NotSupported("speech: no model here speaks", why="no task gives sound")


async def images(request: Request) -> Response:
    """Not offered."""
    raise NotSupported("images: no model here draws", why="no task gives pictures")

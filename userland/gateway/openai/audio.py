"""`POST /v1/audio/transcriptions`: speech to text. What speaks or draws is not offered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.syscalls.types import Audio, Inference, Parts, Transcript

from ..core.errors import FAILURES
from ..core.respond import EventStream, encoded, json_response, sse, sse_error
from .orders import Order, Running, run, start, told
from .subtitles import Timed, lines_of, subtitles
from .uploads import file_of, form_of, text_of

TASK = "automatic-speech-recognition"
FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
GRANULARITIES = ("segment", "word")
_TIMED = ("verbose_json", "srt", "vtt")
_TAKEN = ("file", "model", "response_format", "language", "stream", "timestamp_granularities[]")


@dataclass(frozen=True)
class Wish:
    """What a form asks for.

    Args:
        form: one of `FORMATS`.
        words: whether the times of words are wanted, beside those of segments.
        language: of the speech, or empty.
        translate: whether to write in English whatever is spoken.
        stream: whether the text is sent as it is written.
    """

    form: str
    words: bool
    language: str
    translate: bool
    stream: bool

    def options(self, times: str) -> dict[str, Any]:
        """Of the task. `times`: what the times are of, or empty."""
        made: dict[str, Any] = {"language": self.language} if self.language else {}
        if self.translate:
            made["translate"] = True
        return {**made, "timestamps": times} if times else made


async def transcriptions(request: Request) -> ASGIApp:
    """What is said in a sound, in its language."""
    return await _transcribe(request, translate=False)


async def translations(request: Request) -> ASGIApp:
    """What is said in a sound, in English."""
    return await _transcribe(request, translate=True)


async def _transcribe(request: Request, *, translate: bool) -> ASGIApp:
    async with form_of(request) as form:
        sound = await file_of(form).read()
        model, wish = text_of(form, "model"), wish_of(form, translate=translate)
        if ignored := [name for name in form if name not in _TAKEN]:
            request.scope["state"]["ignored"] = ignored
    if not model:
        raise BadArgument("the form names no model", name="model", want="a model")
    content = Parts(parts=[Audio(data=sound)])
    order = Order(model=model, content=content, task=TASK, wanted_task=TASK, options=wish.options(""))
    if wish.stream:
        running = await start(request, order)
        return EventStream(_events(request, running), on_close=running.close)
    if wish.form not in _TIMED:
        return _written(await run(request, order), wish)
    return await _with_times(request, order, wish)


async def _with_times(request: Request, order: Order, wish: Wish) -> Response:
    """Some recognisers know when a segment is said, others when a word is: segments are then made of words."""
    if not wish.words:
        try:
            inference = await run(request, replace(order, options=wish.options("segment")))
        except BadArgument as error:
            if error.name != "timestamps":
                raise
        else:
            return _written(inference, wish)
    inference = await run(request, replace(order, options=wish.options("word")))
    return _written(inference, wish, of_words=True)


def wish_of(form: FormData, *, translate: bool) -> Wish:
    """What the fields of a form ask for. Raises BadArgument: something that cannot be."""
    name = text_of(form, "response_format", "json")
    if name not in FORMATS:
        raise _not_among("response_format", name, FORMATS)
    wanted = [str(each) for each in form.getlist("timestamp_granularities[]")]
    for each in wanted:
        if each not in GRANULARITIES:
            raise _not_among("timestamp_granularities", each, GRANULARITIES)
    if wanted and name != "verbose_json":
        field = "timestamp_granularities"
        raise BadArgument(f"{field} needs response_format verbose_json", name=field, got=name, want="verbose_json")
    stream = text_of(form, "stream").lower()
    if stream not in ("", "true", "false"):
        raise _not_among("stream", stream, ("true", "false"))
    if stream == "true" and name in _TIMED:
        raise BadArgument(f"a stream has no times; {name} is no stream", name="stream", want="json or text")
    return Wish(name, "word" in wanted, text_of(form, "language"), translate, stream == "true")


def _not_among(name: str, got: str, among: Sequence[str]) -> BadArgument:
    want = ", ".join(among)
    return BadArgument(f"{name} is {got[:40]!r}; expected {want}", name=name, got=got[:40], want=want)


def _written(inference: Inference, wish: Wish, *, of_words: bool = False) -> Response:
    result = inference.result
    timed: list[Timed] = list(result.segments) if isinstance(result, Transcript) else []
    segments = lines_of(timed) if of_words else timed
    if wish.form == "json":
        return json_response({"text": inference.text})
    if wish.form == "text":
        return PlainTextResponse(inference.text + "\n")
    if wish.form == "verbose_json":
        made: dict[str, Any] = {
            "task": "translate" if wish.translate else "transcribe",
            "duration": segments[-1][1] if segments else 0.0,
            "text": inference.text,
            "segments": [{"id": at, "start": a, "end": b, "text": text} for at, (a, b, text) in enumerate(segments)],
        }
        if wish.language:
            made["language"] = wish.language
        if wish.words:
            made["words"] = [{"word": text, "start": a, "end": b} for a, b, text in timed]
        return json_response(made)
    return PlainTextResponse(subtitles(segments, wish.form))


async def _events(request: Request, running: Running) -> AsyncIterator[bytes]:
    """The text as it is written; a recogniser that writes nothing before its end gives all of it at once."""
    sent = False
    try:
        if running.first is not None and running.first.text:
            sent = True
            yield _delta(running.first.text)
        async for chunk in running.reader:
            if chunk.text:
                sent = True
                yield _delta(chunk.text)
        inference = await running.reader.result()
        told(request, inference)
        if not sent:
            yield _delta(inference.text)
        yield sse(encoded({"type": "transcript.text.done", "text": inference.text}))
    except FAILURES as error:
        yield sse_error(error)


def _delta(text: str) -> bytes:
    return sse(encoded({"type": "transcript.text.delta", "delta": text}))


async def speech(request: Request) -> Response:
    """Not offered."""
    raise NotSupported("speech: no model here speaks", why="no task gives sound")


async def images(request: Request) -> Response:
    """Not offered."""
    raise NotSupported("images: no model here draws", why="no task gives pictures")

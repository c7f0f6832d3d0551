"""The forms of a transcript; the routes are in `test_routes`, models that hear in `test_media`."""

from __future__ import annotations

import json

import pytest
from starlette.datastructures import FormData

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Inference, Transcript
from llmos.userland.gateway.openai.audio import Wish, _written, wish_of

SEGMENTS = [(0.0, 1.5, " Hello "), (3661.25, 3662.0, "you")]
HEARD = Inference(id="r", task="asr", model_version="1", result=Transcript(text="Hello you", segments=SEGMENTS))


def wish(form: str, **how: bool) -> Wish:
    return Wish(form, how.get("words", False), "", how.get("translate", False), False)


def test_the_forms_of_a_transcript() -> None:
    assert _written(HEARD, wish("json")).body == b'{"text":"Hello you"}'
    assert _written(HEARD, wish("text")).body == b"Hello you\n"
    verbose = json.loads(_written(HEARD, wish("verbose_json", translate=True)).body)
    assert verbose == {
        "task": "translate", "duration": 3662.0, "text": "Hello you",
        "segments": [{"id": 0, "start": 0.0, "end": 1.5, "text": " Hello "},
                     {"id": 1, "start": 3661.25, "end": 3662.0, "text": "you"}],
    }  # fmt: skip
    assert _written(HEARD, wish("srt")).media_type == "text/plain"


def test_segments_that_are_words() -> None:
    near = Transcript(text="a b", segments=[(0.0, 0.5, "a"), (0.6, 1.0, "b")])
    made = _written(Inference(id="r", task="asr", model_version="1", result=near), wish("verbose_json", words=True),
                    of_words=True)  # fmt: skip
    verbose = json.loads(made.body)
    assert verbose["segments"] == [{"id": 0, "start": 0.0, "end": 1.0, "text": "a b"}]
    assert verbose["words"] == [{"word": "a", "start": 0.0, "end": 0.5}, {"word": "b", "start": 0.6, "end": 1.0}]


def test_what_a_form_asks_for() -> None:
    fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "segment"), ("language", "de"),
              ("timestamp_granularities[]", "word"), ("stream", "false")]  # fmt: skip
    made = wish_of(FormData(fields), translate=True)
    assert made == Wish("verbose_json", True, "de", True, False)
    assert made.options("word") == {"language": "de", "translate": True, "timestamps": "word"}
    assert wish_of(FormData([("stream", "True")]), translate=False).stream


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"response_format": "xml"}, "response_format"), ({"stream": "maybe"}, "stream"),
     ({"stream": "true", "response_format": "srt"}, "stream"),
     ({"timestamp_granularities[]": "letter", "response_format": "verbose_json"}, "timestamp_granularities"),
     ({"timestamp_granularities[]": "word"}, "timestamp_granularities")],
)  # fmt: skip
def test_what_cannot_be(fields: dict[str, str], name: str) -> None:
    with pytest.raises(BadArgument) as raised:
        wish_of(FormData(fields), translate=False)
    assert raised.value.name == name

"""Pictures and sounds through the API with the client of OpenAI: tiny models of random weights on the CPU.

What a model says has no sense; the kernel's own client hears the same, and other media get other answers.
"""

from __future__ import annotations

import base64
import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway_server import Booted, GatewayServer, serving
from kinds_home import ctc
from tiny_kinds import image_part, pictures, sound_part
from tiny_media import llava, speech, whisper
from tiny_models import build, byte_level

from llmos.syscalls.types import Image, Parts, Sampling, Text, Transcript
from llmos.userland import boot

pytestmark = pytest.mark.slow

SEEN = [bytes(image_part(picture).data) for picture in pictures(3)]
HEARD = [bytes(sound_part(samples).data) for samples in speech(3)]
FEW = {"max_tokens": 10, "temperature": 0}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A kernel with a model that sees, one that writes what it hears with times, one with words, and one that reads."""
    home = tmp_path_factory.mktemp("home")
    models = home / "models"
    models.mkdir()
    llava(models / "sees", 3)
    whisper(models / "hears", 3)
    ctc(models / "spells")
    build(models / "reads", tokenizer=byte_level(chat=True))
    with boot(drivers=["cpu0", "models", "files"], home=home) as made:
        yield made


@pytest.fixture(scope="module")
def module_gateway(system: Any) -> Iterator[GatewayServer]:
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="t")))
        yield stack.enter_context(serving(Booted(system, home)))


@pytest.fixture
def client(gateway: GatewayServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(), max_retries=0) as client:
        yield client


def shown(data: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def spoken(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def asked(*parts: dict[str, Any], text: str = "what is this?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def said(client: openai.OpenAI, messages: Any, model: str = "sees", **how: Any) -> str:
    made = client.chat.completions.create(model=model, messages=messages, **{**FEW, **how})
    assert made.usage and made.usage.completion_tokens > 0 and made.usage.prompt_tokens > 4
    return made.choices[0].message.content or ""


def test_a_picture_is_seen(system: Any, client: openai.OpenAI) -> None:
    answers = [said(client, asked(shown(data))) for data in SEEN]
    assert len(set(answers)) >= 2, answers
    with system.load_model("/models/sees") as model:
        for data, answer in zip(SEEN, answers, strict=True):
            parts = Parts(parts=[Image(data=data), Text(text="what is this?")])
            assert model.infer(parts, sampling=Sampling(max_tokens=10, temperature=0)).text == answer


def test_a_picture_and_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="sees", messages=asked(shown(SEEN[0])), stream=True, stream_options={"include_usage": True}, **FEW
    ) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == said(client, asked(shown(SEEN[0]))) != ""
    assert chunks[-1].usage.completion_tokens > 0 and len(chunks) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")


def test_pictures_in_a_chat_of_several_turns(client: openai.OpenAI) -> None:
    """Every message counts, also those of text alone, whose content is no list."""
    turns = [{"role": "assistant", "content": "a fox"}, *asked(shown(SEEN[1]), text="and this?")]
    chats = [
        [*asked(shown(SEEN[0])), *turns],
        [*asked(shown(SEEN[2])), *turns],
        [{"role": "system", "content": "def f(x): return x"}, *asked(shown(SEEN[0])), *turns],
    ]
    counts = []
    for chat in chats:
        made = client.chat.completions.create(model="sees", messages=chat, **FEW)
        counts.append(made.usage.prompt_tokens)
    assert counts[0] == counts[1] < counts[2]
    assert len({said(client, chat) for chat in chats}) >= 2


def test_the_responses_api_sees_too(client: openai.OpenAI) -> None:
    image = {"type": "input_image", "image_url": shown(SEEN[0])["image_url"]["url"]}
    content = [image, {"type": "input_text", "text": "what is this?"}]
    made = client.responses.create(
        model="sees", input=[{"role": "user", "content": content}], max_output_tokens=10, temperature=0
    )
    assert made.output_text == said(client, asked(shown(SEEN[0])))


@pytest.mark.parametrize(
    ("model", "part", "status", "text"),
    [
        ("sees", spoken(HEARD[0]), 400, "the input must be pictures and texts"),
        ("reads", shown(SEEN[0]), 501, "pictures are no input of LlamaForCausalLM: a language model takes text"),
        ("reads", spoken(HEARD[0]), 501, "sounds are no input of LlamaForCausalLM: a language model takes text"),
        ("sees", shown(SEEN[0][:60]), 400, "damaged"),
        ("sees", {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}, 400, "nothing is fetched"),
    ],
)
def test_what_a_model_does_not_take_is_said(
    client: openai.OpenAI, model: str, part: dict[str, Any], status: int, text: str
) -> None:
    for earlier in ([], [{"role": "system", "content": "x"}]):
        with pytest.raises(openai.APIStatusError) as raised:
            said(client, [*earlier, *asked(part)], model=model)
        assert raised.value.status_code == status
        assert raised.value.code == ("not_supported" if status == 501 else "bad_argument"), raised.value
        if not earlier:
            assert text in raised.value.message


def heard(client: openai.OpenAI, form: str, model: str = "hears", at: int = 0, **how: Any) -> Any:
    return client.audio.transcriptions.create(
        model=model, file=("x.wav", HEARD[at], "audio/wav"), response_format=form, **how
    )


def test_what_is_heard_in_every_form(system: Any, client: openai.OpenAI) -> None:
    with system.load_model("/models/hears") as model:
        plain = model.infer(HEARD[0], options={"language": "en"})
        timed = model.infer(HEARD[0], options={"language": "en", "timestamps": "segment"})
    assert isinstance(timed.result, Transcript) and timed.result.segments and plain.text
    assert heard(client, "json", language="en").text == plain.text
    assert heard(client, "text", language="en") == plain.text + "\n"
    verbose = heard(client, "verbose_json", language="en", timestamp_granularities=["segment"])
    assert verbose.text == timed.text and verbose.language == "en"
    assert [(each.start, each.end, each.text) for each in verbose.segments] == timed.result.segments
    assert verbose.duration == timed.result.segments[-1][1]
    srt, vtt = heard(client, "srt", language="en"), heard(client, "vtt", language="en")
    clock = r"\d\d:\d\d:\d\d[,.]\d{3}"
    assert len(re.findall(f"^{clock} --> {clock}$", srt, re.MULTILINE)) == len(timed.result.segments)
    assert srt.startswith("1\n00:00:0") and vtt.startswith("WEBVTT\n\n00:00:0") and "," not in vtt.splitlines()[2][:12]
    assert len({heard(client, "json", at=at).text for at in range(3)}) >= 2


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's word on translations
def test_what_is_heard_as_a_stream_and_in_english(client: openai.OpenAI) -> None:
    events = list(heard(client, "json", language="en", stream=True))
    assert events[-1].type == "transcript.text.done" and events[-1].text == heard(client, "json", language="en").text
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == events[-1].text
    translated = client.audio.translations.create(model="hears", file=("x.wav", HEARD[0]), response_format="json")
    assert translated.text


def test_who_knows_the_times_of_words_only(system: Any, client: openai.OpenAI) -> None:
    """Segments are then made of words."""
    with system.load_model("/models/spells") as model:
        words = model.infer(HEARD[2], options={"timestamps": "word"}).result.segments
    verbose = heard(client, "verbose_json", "spells", 2)
    assert words and verbose.segments and not getattr(verbose, "words", None)
    assert (verbose.segments[0].start, verbose.segments[-1].end) == (words[0][0], words[-1][1])
    assert " ".join(each.text for each in verbose.segments).split() == [text for *_, text in words]
    both = heard(client, "verbose_json", "spells", 2, timestamp_granularities=["word", "segment"])
    assert [(each.start, each.end, each.word) for each in both.words] == words
    assert heard(client, "srt", "spells", 2).startswith("1\n00:00:0")


@pytest.mark.parametrize(
    ("form", "how", "name"),
    [
        ("verbose_json", {"timestamp_granularities": ["word"]}, "timestamps"),
        ("json", {"timestamp_granularities": ["segment"]}, "timestamp_granularities"),
        ("xml", {}, "response_format"),
        ("srt", {"stream": True}, "stream"),
    ],
)
def test_what_cannot_be_had_of_speech_is_said(client: openai.OpenAI, form: str, how: dict[str, Any], name: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        heard(client, form, **how)
    assert raised.value.param == name
    with pytest.raises(openai.BadRequestError):
        client.audio.transcriptions.create(model="hears", file=("x.wav", b"no sound"))


def test_fields_that_are_not_taken_are_named(client: openai.OpenAI) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        model="hears", file=("x.wav", HEARD[0]), prompt="fox", temperature=0
    )
    assert set(raw.headers["x-llmos-ignored"].split(", ")) == {"prompt", "temperature"}

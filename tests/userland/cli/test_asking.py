"""Plain English to commands: what is refused, with a scripted model and with the bundled one's manifest."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.syscalls.errors import NotFound
from llmos.syscalls.types import Choice, Inference, TokenLogprob
from llmos.userland import boot
from llmos.userland.cli.asking import DEFAULT_THRESHOLD, Refusal, Suggestion, invented, threshold, translate
from llmos.userland.cli.cli import DEFAULT_MODEL
from llmos.userland.cli.parser import parse_line


class Says:
    """A model that always answers the same line with the same confidence."""

    def __init__(self, line: str, confidence: float = 1.0, reason: str = "stop") -> None:
        self._choice = Choice(
            index=0,
            text=line,
            tokens=[1],
            reason=reason,
            logprobs=[TokenLogprob(token=1, text=line, logprob=math.log(confidence))],
        )

    def infer(self, messages: Any, **options: Any) -> Inference:
        assert options["temperature"] == 0.0
        return Inference(id="r", task="text-generation", model_version="1", choices=[self._choice])


def ask(says: Says, request: str = "put tiny to sleep") -> Suggestion | Refusal:
    return translate(says, request, 0.5)  # type: ignore[arg-type]  # it only needs `infer`


def test_a_command_that_parses_is_suggested_with_its_confidence() -> None:
    found = ask(Says("sleep tiny", 0.9))
    assert isinstance(found, Suggestion)
    assert (found.line, found.command.name, found.values.model) == ("sleep tiny", "sleep", "tiny")
    assert found.confidence == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (Says("unknown"), "do not understand"),
        (Says("sleep tiny", reason="length"), "do not understand"),
        (Says("dance tiny"), "no command"),
        (Says("sleep --help"), "no command"),
        (Says("sleep tiny", 0.3), r"30%, 50% are needed.*sleep tiny"),
        (Says("sleep tinny"), "'tinny' does not stand in it"),
    ],
    ids=["unknown", "unfinished", "no command", "help", "unsure", "invented"],
)
def test_everything_else_is_refused_with_the_reason(says: Says, why: str) -> None:
    found = ask(says)
    assert isinstance(found, Refusal)
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found.why)


@pytest.mark.parametrize(
    ("line", "request_text", "name"),
    [
        ("load /models/acme/fox-7 --name fox", "load acme/fox-7 and call it Fox", ""),
        ("load /models/acme/fox-7 --device cpu0", "load acme/fox-7 on the cpu", ""),
        ("load /models/acme/fox-8", "load acme/fox-7", "/models/acme/fox-8"),
        ("logs t-17 -n 20", "the last twenty records about t-17", ""),
        ("logs t-71", "what happened to t-17", "t-71"),
        ("swap fox v3", "change fox to v2", "v3"),
        ('search /data "the for statement"', "look for the  for statement in /data", ""),
        ('search /data "the statement"', "look for the for statement in /data", "the statement"),
        ("run /models/tiny hello --stop one --stop two", "run tiny with hello and stop at one", "two"),
        ("ps", "which models are loaded", ""),
    ],
)
def test_names_and_texts_must_stand_in_the_request(line: str, request_text: str, name: str) -> None:
    command, values = parse_line(line)
    assert invented(command, values, request_text) == name


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ({"metrics": {"confidence": {"threshold": 0.45}}}, 0.45),
        ({"metrics": {"confidence": "high"}}, DEFAULT_THRESHOLD),
        ({}, DEFAULT_THRESHOLD),
        (None, DEFAULT_THRESHOLD),
    ],
)
def test_the_threshold_comes_from_the_manifest(content: Any, limit: float) -> None:
    def read(path: str) -> bytes:
        assert path == "/models/tiny/manifest.json"
        if content is None:
            raise NotFound("no manifest")
        return json.dumps(content).encode()

    assert threshold(SimpleNamespace(read=read), "/models/tiny/") == limit  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_bundled_model_understands_and_refuses(folder: Any) -> None:
    with boot(drivers=["cpu0", "models"], home=folder) as system:
        tiny = system.load_model(DEFAULT_MODEL)
        limit = threshold(system, DEFAULT_MODEL)
        understood = translate(tiny, "which models are loaded", limit)
        assert isinstance(understood, Suggestion) and understood.line == "ps"
        assert isinstance(translate(tiny, "what is love", limit), Refusal)

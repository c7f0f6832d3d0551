"""From English to a command: what is accepted and refused, by scripted answers; and the bundled model itself."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.syscalls.errors import NotFound
from llmos.userland import boot
from llmos.userland.cli.asking import DEFAULT_THRESHOLD, Refusal, Suggestion, invented, threshold, translate
from llmos.userland.cli.cli import DEFAULT_MODEL
from llmos.userland.cli.parser import parse_line


def model(said: str, confidence: float = 0.9, reason: str = "stop") -> Any:
    half = SimpleNamespace(logprob=math.log(confidence) / 2)
    choice = SimpleNamespace(text=said, logprobs=[half, half], reason=reason)

    def infer(messages: Any, **options: Any) -> Any:
        assert options["logprobs"] == 0 and options["temperature"] == 0.0
        assert messages == [{"role": "user", "content": "which models are loaded"}]
        return SimpleNamespace(choices=[choice])

    return SimpleNamespace(infer=infer)


def test_a_command_the_model_is_sure_of_is_suggested() -> None:
    found = translate(model(" ps\n", 0.8), " which models are loaded ", 0.7)
    assert isinstance(found, Suggestion)
    assert (found.line, found.command.name) == ("ps", "ps") and found.confidence == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("said", "confidence", "reason", "why"),
    [
        ("unknown", 0.99, "stop", "do not understand"),
        ("rm -rf /", 0.99, "stop", "was no command"),
        ("load", 0.99, "stop", "was no command"),
        ("load --help", 0.99, "stop", "was no command"),
        ("ps", 0.99, "length", "do not understand"),
        ("ps", 0.5, "stop", "not sure"),
        ("", 0.99, "stop", "was no command"),
    ],
)
def test_everything_else_is_refused(said: str, confidence: float, reason: str, why: str) -> None:
    found = translate(model(said, confidence, reason), "which models are loaded", 0.7)
    assert isinstance(found, Refusal) and why in found.why


@pytest.mark.parametrize(
    ("line", "request_text", "made_up"),
    [
        ("load /models/fox", "load Fox please", ""), ("load /models/fox", "load the wolf", "/models/fox"),
        ("unload fox --force", "away with fox", ""), ("load fox --name red", "load fox", "red"),
        ("search /knowledge cats", "search /knowledge for cats", ""), ("run fox --stop end", "run fox", "end"),
        ("load fox --device cpu0", "load fox", ""), ("ps", "which models are loaded", ""),
    ],
)  # fmt: skip
def test_a_name_that_does_not_stand_in_the_request_was_made_up(line: str, request_text: str, made_up: str) -> None:
    assert invented(*parse_line(line), request_text) == made_up


def test_a_made_up_name_is_refused() -> None:
    found = translate(model("unload fox"), "which models are loaded", 0.5)
    assert isinstance(found, Refusal) and "'fox' does not stand in it" in found.why


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (b'{"metrics": {"confidence": {"threshold": 0.83}}}', 0.83),
        (b'{"metrics": {"confidence": 3}}', DEFAULT_THRESHOLD),
        (b"{}", DEFAULT_THRESHOLD), (b'{"metrics": {"confidence": {"threshold": "x"}}}', DEFAULT_THRESHOLD),
    ],
)  # fmt: skip
def test_the_threshold_stands_in_the_manifest(manifest: bytes, expected: float) -> None:
    assert threshold(SimpleNamespace(read=lambda path: manifest), "/models/x") == expected  # type: ignore[arg-type]


def test_without_a_manifest_the_default_holds() -> None:
    def read(path: str) -> bytes:
        raise NotFound(path)

    assert threshold(SimpleNamespace(read=read), "/models/x") == DEFAULT_THRESHOLD  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_bundled_model_understands_and_refuses(folder: Any) -> None:
    with boot(drivers=["cpu0", "models"], home=folder) as system:
        tiny = system.load_model(DEFAULT_MODEL)
        limit = threshold(system, DEFAULT_MODEL)
        understood = translate(tiny, "which models are loaded", limit)
        assert isinstance(understood, Suggestion) and understood.line == "ps"
        assert isinstance(translate(tiny, "what is love", limit), Refusal)

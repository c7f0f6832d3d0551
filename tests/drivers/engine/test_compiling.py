"""Grammars are compiled beside the steps, on each rung that generates."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tiny_models import PROMPT, ask, done, finish

from llmos.drivers.contract import ChunkEvent, DoneEvent, FailedEvent, StepEvent
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.sampling.grammar import GrammarCompiler
from llmos.syscalls.errors import BadArgument


class Held:
    """A compiler that waits to be let go, and in which threads it was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.threads: list[threading.Thread] = []
        self._real = GrammarCompiler._compile
        monkeypatch.setattr(GrammarCompiler, "_compile", lambda *given: self._compile(*given))

    def _compile(self, *given: Any) -> Any:
        self.threads.append(threading.current_thread())
        assert self.go.wait(60)
        return self._real(*given)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


def until_done(engine: Engine) -> DoneEvent:
    for _ in range(2000):
        for event in engine.step():
            if isinstance(event, DoneEvent):
                return event
    raise AssertionError("never done")


def busy(engine: Engine) -> bool:
    return any(runner.busy for runner in engine._entries["m"].awake().runners)


def test_others_go_on_while_a_grammar_is_compiled(engine: Engine, held: Held) -> None:
    engine.submit(ask(PROMPT, "g", max_tokens=30, grammar={"regex": "[ab]{8}"}))
    engine.submit(ask(PROMPT, "s", max_tokens=20, stream=True))
    tokens: list[int] = []
    while len(tokens) < 20:
        tokens += [token for event in engine.step() if isinstance(event, ChunkEvent) for token in event.tokens]
    assert busy(engine) and not engine.step() and held.threads[0] is not threading.current_thread()
    held.go.set()
    (answer,) = until_done(engine).choices
    assert len(answer.text) == 8 and set(answer.text) <= {"a", "b"}


def test_each_answer_of_a_request_follows_its_grammar(engine: Engine) -> None:
    options = {"n": 3, "temperature": 1.5, "seed": 3, "max_tokens": 20, "grammar": {"regex": "[ab]{5}"}}
    answers = done(engine, ask(PROMPT, **options)).choices
    assert all(len(made.text) == 5 and set(made.text) <= {"a", "b"} for made in answers)
    assert len({made.text for made in answers}) > 1


def test_what_is_no_grammar_ends_its_request_alone(engine: Engine) -> None:
    found = finish(engine, ask(PROMPT, "a", grammar={"regex": "("}), ask(PROMPT, "b", max_tokens=3))
    failed, ended = found["a"][-1], found["b"][-1]
    assert isinstance(failed, FailedEvent) and isinstance(failed.error, BadArgument)
    assert isinstance(ended, DoneEvent) and ended.new_tokens == 3 and not busy(engine)
    with pytest.raises(BadArgument, match="exactly one"):
        engine.submit(ask(PROMPT, grammar={"regex": "a", "lark": "start: /a/"}))
    assert not busy(engine)


def test_a_request_is_cancelled_while_its_grammar_is_compiled(engine: Engine, held: Held) -> None:
    engine.submit(ask(PROMPT, "c", grammar={"regex": "[cd]"}))
    engine.cancel("c")
    ended: list[StepEvent] = list(engine.step())
    held.go.set()
    assert [event.choices[0].reason for event in ended if isinstance(event, DoneEvent)] == ["cancelled"]
    assert not busy(engine)
    assert done(engine, ask(PROMPT, "d", max_tokens=2)).new_tokens == 2


def test_the_conversation_of_a_grammar_that_is_none_stays_as_it_was(engine: Engine) -> None:
    engine.open_context("c", "m", "", 0)
    done(engine, ask(PROMPT, context="c", max_tokens=3))
    before = list(engine._conversations["c"].tokens)
    assert isinstance(finish(engine, ask([5], context="c", grammar={"regex": "("}))["r"][-1], FailedEvent)
    assert list(engine._conversations["c"].tokens) == before
    assert done(engine, ask([5], context="c", max_tokens=2)).prompt_tokens == len(before) + 1

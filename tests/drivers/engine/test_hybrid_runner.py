"""Rung H through the engine: many requests at once answer as the library does for each alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from architectures.build import OTHER_PROMPT, PROMPT, TinyModel, tiny_model
from architectures.reference import greedy
from sweep.served import saved
from tiny_models import ask, done, finish, silent, source_of

from llmos.drivers.contract import DoneEvent, LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.ladder import ROWS
from llmos.drivers.engine.models import plan_model
from llmos.drivers.ops.table import OpTable

Loaded = tuple[Engine, TinyModel]
SETTINGS = LoadSettings(dtype="float32")


@pytest.fixture(params=["mamba", "jamba"])
def served(request: pytest.FixtureRequest, ops: OpTable) -> Iterator[Loaded]:
    engine, model = Engine(ops, prefill_tokens=7), tiny_model(request.param)
    with saved(model) as folder:
        assert engine.load("m", source_of(folder), SETTINGS, silent).rung == "H"
    yield engine, model
    engine.unload("m")


def expected(model: TinyModel, prompt: tuple[int, ...], count: int = 12) -> list[int]:
    return list(greedy(model.module, prompt, count).tokens)


def test_requests_of_unlike_length_at_once(served: Loaded) -> None:
    engine, model = served
    prompts = {"a": PROMPT, "b": OTHER_PROMPT, "c": PROMPT[:3], "d": PROMPT[:1], "a again": PROMPT}
    events = finish(engine, *(ask(prompt, id, max_tokens=12, ignore_eos=True) for id, prompt in prompts.items()))
    for id, prompt in prompts.items():
        last = events[id][-1]
        assert isinstance(last, DoneEvent) and last.cached_tokens == 0
        assert list(last.choices[0].tokens) == expected(model, prompt)


def test_answers_that_are_drawn_are_those_of_each_seed(served: Loaded) -> None:
    engine, _model = served
    options = {"max_tokens": 8, "ignore_eos": True, "temperature": 1.0, "seed": 5}
    together = done(engine, ask(PROMPT, "n", n=3, **options)).choices
    assert together[0].tokens == done(engine, ask(PROMPT, "one", **options)).choices[0].tokens
    assert len({tuple(choice.tokens) for choice in together}) == 3


def test_guesses_change_nothing(served: Loaded) -> None:
    engine, model = served
    prompt = PROMPT[:8] * 3
    answer = done(engine, ask(prompt, max_tokens=24, ignore_eos=True, speculative={"method": "ngram", "tokens": 4}))
    assert list(answer.choices[0].tokens) == expected(model, prompt, 24)


def test_a_conversation_goes_on_from_its_tokens(served: Loaded) -> None:
    engine, model = served
    engine.open_context("c", "m", "", 0)
    first = list(done(engine, ask(PROMPT, context="c", max_tokens=5, ignore_eos=True)).choices[0].tokens)
    last = done(engine, ask([7, 8], context="c", max_tokens=9, ignore_eos=True))
    assert last.cached_tokens == 0
    assert list(last.choices[0].tokens) == expected(model, (*PROMPT, *first, 7, 8), 9)


def test_a_prompt_goes_at_once_and_its_state_is_counted_while_it_is_there(served: Loaded) -> None:
    engine, model = served
    runner = engine._entries["m"].awake().runners[0]
    before = runner.kv_bytes()
    engine.submit(ask(PROMPT, max_tokens=12, ignore_eos=True))
    engine.step()
    assert runner.kv_bytes() > before
    assert list(done(engine, ask(OTHER_PROMPT, "o", max_tokens=3, ignore_eos=True)).choices[0].tokens) == expected(
        model, OTHER_PROMPT, 3
    )


@pytest.mark.parametrize("name", ["mamba", "jamba", "qwen3_next"])
def test_the_states_of_all_rows_are_planned(ops: OpTable, name: str) -> None:
    """Within a tenth of what they really hold, pages included; a few rows find no page in so small a model."""
    engine, model = Engine(ops), tiny_model(name)
    with saved(model) as folder:
        footprint, _context = plan_model(source_of(folder), SETTINGS)
        engine.load("m", source_of(folder), SETTINGS, silent)
    runner = engine._entries["m"].awake().runners[0]
    pages = runner.kv_bytes()
    for number in range(ROWS):
        engine.submit(ask(PROMPT[:2], str(number), max_tokens=40, ignore_eos=True, stream=True))
    rows: set[str] = set()
    held = [0]
    while len(held) < 6 or held[-1] > held[-2]:
        rows |= {event.request for event in engine.step()}
        held.append(runner.kv_bytes())
    assert len(rows) > ROWS // 2
    states = (max(held) - pages) / len(rows) * ROWS
    assert footprint.paged == pytest.approx(pages + states, rel=0.1)
    assert states > pages / 4, "they are no small part of it"

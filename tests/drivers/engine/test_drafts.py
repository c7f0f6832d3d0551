"""Draft models through the engine: loaded, counted and dropped with their model, refused where they do not fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from slow_cases import slow_but
import torch
import transformers
from tiny_models import PROMPT, ask, build, byte_fallback, byte_level, done, silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.paged_runner import PagedRunner
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadArgument, NotSupported

DRAFT: dict[str, Any] = {"method": "draft", "tokens": 3}
SETTINGS = LoadSettings(draft="/models/small")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights, one layer, a shorter context, the same tokens."""
    folder = tmp_path_factory.mktemp("models") / "small"
    tokenizer = byte_level(chat=True, bos=True)
    return build(folder, "qwen2", tokenizer, num_hidden_layers=1, max_position_embeddings=100)


@pytest.fixture(scope="module")
def near(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with disturbed weights: often right, often wrong."""
    folder = tmp_path_factory.mktemp("models") / "near"
    module = transformers.AutoModelForCausalLM.from_pretrained(llama)
    torch.manual_seed(1)
    for weight in module.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.15 * weight.std())
    module.save_pretrained(folder)
    byte_level(chat=True, bos=True).save_pretrained(folder)
    return folder


def loaded(ops: OpTable, llama: Path, draft: Path | None, settings: LoadSettings = SETTINGS) -> Engine:
    engine = Engine(ops)
    source = source_of(llama)
    engine.load("m", source if draft is None else replace(source, draft=source_of(draft)), settings, silent)
    return engine


def runner(engine: Engine) -> PagedRunner:
    found = engine._entries["m"].awake().runners[0]
    assert isinstance(found, PagedRunner)
    return found


@pytest.mark.parametrize("length", slow_but([5, 60], [1, 5, 24, 60]))
def test_greedy_answers_are_the_same_with_any_draft_model(ops: OpTable, llama: Path, small: Path, length: int) -> None:
    prompt = (PROMPT * 3)[:length]
    for draft in (small, llama):
        engine = loaded(ops, llama, draft)
        plain = done(engine, ask(prompt, max_tokens=40))
        guessed = done(engine, ask(prompt, max_tokens=40, speculative=DRAFT))
        assert guessed.choices == plain.choices and plain.accepted_tokens == 0
        assert len(set(plain.choices[0].tokens)) > 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_drafts_for_itself_is_always_right(ops: OpTable, llama: Path, temperature: float) -> None:
    engine = loaded(ops, llama, llama)
    engine.submit(ask(PROMPT, max_tokens=41, temperature=temperature, seed=3, speculative=DRAFT))
    steps = 0
    ended: Any = None
    while ended is None:
        steps += 1
        ended = next((event for event in engine.step() if hasattr(event, "accepted_tokens")), None)
    assert ended.new_tokens == 41 and ended.accepted_tokens == 30
    assert steps == 11, "after the first token each step brings three guesses and one more"


@pytest.mark.slow
def test_drawn_answers_are_distributed_as_without_a_draft_model(ops: OpTable, llama: Path, near: Path) -> None:
    """Chi-square over the first two tokens of many answers, against the same model without guesses."""
    engine = loaded(ops, llama, near)
    asked: dict[str, Any] = {"max_tokens": 4, "temperature": 3.0, "top_k": 4, "n": 200}

    def counts(first: int, **options: Any) -> tuple[Counter[tuple[int, ...]], int]:
        found: Counter[tuple[int, ...]] = Counter()
        accepted = 0
        for seed in range(first, first + 8):
            result = done(engine, ask(PROMPT, seed=seed, **asked, **options))
            found.update(tuple(choice.tokens[1:3]) for choice in result.choices)
            accepted += result.accepted_tokens
        return found, accepted

    plain, _ = counts(0)
    guessed, accepted = counts(1000, speculative=DRAFT)
    assert 0.2 < accepted / (8 * 200 * 2) < 0.9, "the rule is not at work"
    seen = [pair for pair in plain | guessed if plain[pair] + guessed[pair] >= 20]
    assert len(seen) > 20
    square = sum((plain[pair] - guessed[pair]) ** 2 / (plain[pair] + guessed[pair]) for pair in seen)
    free = len(seen)
    assert square < free + 5.0 * (2.0 * free) ** 0.5, (square, free)


def test_one_batch_serves_all_ways_of_guessing_and_leaves_nothing(ops: OpTable, llama: Path, small: Path) -> None:
    engine = loaded(ops, llama, small)
    ways: list[Any] = [None, DRAFT, {"method": "ngram"}, {"method": "draft", "tokens": 7}]
    asked = [
        ask(PROMPT[at:] * 2, f"r{at}", max_tokens=30, temperature=0.0, speculative=way) for at, way in enumerate(ways)
    ]
    alone = {request.id: done(engine, replace(request, sampling=replace(request.sampling, speculative=None))) for
             request in asked}  # fmt: skip
    for request in asked:
        engine.submit(request)
    ended: dict[str, Any] = {}
    while len(ended) < len(asked):
        ended |= {event.request: event for event in engine.step() if hasattr(event, "accepted_tokens")}
    assert {id: event.choices for id, event in ended.items()} == {id: event.choices for id, event in alone.items()}
    drafter = runner(engine).drafter
    assert drafter is not None and not drafter._followers and drafter._blocks.used == 0


def test_grammar_and_end_tokens_hold_under_guesses(ops: OpTable, llama: Path) -> None:
    engine = loaded(ops, llama, llama)
    asked: dict[str, Any] = {"max_tokens": 12, "temperature": 1.0, "seed": 5, "speculative": DRAFT}
    result = done(engine, ask(PROMPT, grammar={"regex": "[ab]{6}"}, **asked))
    assert len(result.choices[0].text) == 6 and set(result.choices[0].text) <= {"a", "b"}
    plain = done(engine, ask(PROMPT, max_tokens=20)).choices[0].tokens
    stop = list(dict.fromkeys(plain))[5]
    cut = done(engine, ask(PROMPT, max_tokens=20, stop_token_ids=[stop], speculative=DRAFT)).choices[0]
    assert cut.reason == "stop" and list(cut.tokens) == list(plain)[: list(plain).index(stop) + 1]


def test_its_bytes_are_planned_held_and_leave_with_the_model(ops: OpTable, llama: Path, small: Path) -> None:
    def rows(found: Any) -> dict[str, int]:
        return {row.what: row.predicted for row in found}

    source = replace(source_of(llama), draft=source_of(small))
    alone, own = rows(Engine(ops).plan(source_of(llama), LoadSettings())), rows(
        Engine(ops).plan(source_of(small), LoadSettings())
    )
    planned = rows(Engine(ops).plan(source, SETTINGS))
    assert planned["weights"] == alone["weights"] + own["weights"] and planned["kv"] == alone["kv"] + own["kv"]
    engine = loaded(ops, llama, small)
    held = {row.what: row.allocator for row in engine.memory()}
    assert held["kv"] == planned["kv"] and held["weights"] == pytest.approx(planned["weights"], rel=0.05)
    assert engine.unload("m") == held["weights"] + held["kv"] and not engine.memory()


def test_it_sleeps_and_wakes_with_its_model(ops: OpTable, llama: Path, small: Path) -> None:
    engine = loaded(ops, llama, llama)
    before = done(engine, ask(PROMPT, max_tokens=20, speculative=DRAFT))
    engine.sleep("m")
    engine.wake("m", silent)
    after = done(engine, ask(PROMPT, max_tokens=20, speculative=DRAFT))
    assert after.choices == before.choices and after.accepted_tokens == before.accepted_tokens > 0


def test_what_cannot_draft_is_refused(ops: OpTable, llama: Path, small: Path, bert: Path, tmp_path: Path) -> None:
    other = build(tmp_path / "other", tokenizer=byte_fallback())
    with pytest.raises(BadArgument, match="another vocabulary") as refused:
        loaded(ops, llama, other)
    assert refused.value.name == "draft"
    with pytest.raises(NotSupported, match="generates no text"):
        loaded(ops, llama, bert)
    with pytest.raises(NotSupported, match="did not come"):
        loaded(ops, llama, None)
    with pytest.raises(BadArgument, match="rung P alone"):
        loaded(ops, llama, small, replace(SETTINGS, rung="G"))
    mamba = build(tmp_path / "mamba", "mamba", byte_level(chat=True, bos=True))
    with pytest.raises(NotSupported, match="recurrent state"):
        loaded(ops, llama, mamba)
    with pytest.raises(NotSupported, match="rung P alone"):
        loaded(ops, mamba, llama)


def test_a_request_for_a_draft_model_needs_one(ops: OpTable, llama: Path) -> None:
    engine = loaded(ops, llama, None, LoadSettings())
    with pytest.raises(NotSupported, match="without a draft model"):
        engine.submit(ask(PROMPT, speculative=DRAFT))

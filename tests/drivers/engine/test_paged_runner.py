"""Rung P: what only a runner with many requests in a step can do, and that it changes no answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import CONTEXT, PROMPT, ask, choice, done, greedy, silent, source_of

from llmos.drivers.contract import ChunkEvent, DoneEvent, FailedEvent, LoadSettings, StepEvent
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.paged_runner import PagedRunner
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import NotFound, TimedOut

OTHERS = (PROMPT[:7], PROMPT[3:], PROMPT * 2, PROMPT[::-1])


@pytest.fixture
def rung() -> str:
    return "P"


def runner(engine: Engine) -> PagedRunner:
    found = engine._entries["m"].awake().runners[0]
    assert isinstance(found, PagedRunner)
    return found


def run(engine: Engine, requests: Sequence[Any], stagger: int = 0) -> dict[str, list[StepEvent]]:
    """All events by request; each request comes `stagger` steps after the one before."""
    events: dict[str, list[StepEvent]] = {request.id: [] for request in requests}
    waiting = list(requests)
    for at in range(10_000):
        if waiting and at % max(1, stagger) == 0:
            ready = [waiting.pop(0)] if stagger else waiting[:]
            waiting = waiting if stagger else []
            for request in ready:
                engine.submit(request)
        for event in engine.step():
            events[event.request].append(event)
        if not waiting and all(found and not isinstance(found[-1], ChunkEvent) for found in events.values()):
            return events
    raise AssertionError("requests never ended")


def last(events: Sequence[StepEvent]) -> DoneEvent:
    assert isinstance(events[-1], DoneEvent), events[-1]
    return events[-1]


@pytest.mark.parametrize("stagger", [0, 1, 3])
@pytest.mark.parametrize("prefill_tokens", [5, 512])
def test_in_any_company_the_answer_is_that_of_generate(
    ops: OpTable, llama: Path, stagger: int, prefill_tokens: int
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    engine = Engine(ops, prefill_tokens)
    engine.load("m", source_of(llama), LoadSettings(), silent)
    events = run(engine, [ask(prompt, str(at), max_tokens=20) for at, prompt in enumerate(OTHERS)], stagger)
    for at, prompt in enumerate(OTHERS):
        assert list(last(events[str(at)]).choices[0].tokens) == greedy(model, prompt)[0][:20]


def test_a_seed_gives_the_same_tokens_in_any_company(engine: Engine) -> None:
    asked = [ask(p, str(at), max_tokens=15, temperature=1.3, seed=at) for at, p in enumerate(OTHERS)]
    together = run(engine, asked, stagger=2)
    for request in asked:
        assert last(together[request.id]).choices == done(engine, request).choices


def test_the_prefix_of_an_earlier_prompt_is_not_computed_again(engine: Engine) -> None:
    prompt = [*PROMPT, *PROMPT, 5]
    first = done(engine, ask(prompt, max_tokens=8))
    second = done(engine, ask([*prompt, 9], max_tokens=8))
    again = done(engine, ask(prompt, max_tokens=8))
    assert (first.cached_tokens, second.cached_tokens, again.cached_tokens) == (0, 48, 48)
    assert again.choices == first.choices


def test_tenants_do_not_share_what_is_computed(engine: Engine) -> None:
    prompt = [*PROMPT, *PROMPT, 5]
    one, two = (replace(ask(prompt, max_tokens=1), tenant=tenant) for tenant in ("a", "b"))
    found = [done(engine, request).cached_tokens for request in (one, two, one)]
    assert found == [0, 0, 48]


def test_several_answers_share_the_prompt_and_differ(engine: Engine) -> None:
    result = done(engine, ask(PROMPT * 2, max_tokens=6, n=3, temperature=1.5, seed=4))
    assert [c.index for c in result.choices] == [0, 1, 2] and result.new_tokens == 18
    assert len({tuple(c.tokens) for c in result.choices}) > 1
    single = choice(engine, ask(PROMPT * 2, max_tokens=6, temperature=1.5, seed=4))
    assert result.choices[0] == single


def test_of_best_of_the_likeliest_are_given(engine: Engine) -> None:
    stops = choice(engine, ask(PROMPT, max_tokens=6, temperature=1.5, seed=4)).tokens[1:2]
    asked = {"max_tokens": 6, "temperature": 1.5, "seed": 4, "logprobs": 0, "stop_token_ids": list(stops)}
    every = done(engine, ask(PROMPT, n=5, **asked)).choices
    assert len({len(made.tokens) for made in every}) > 1
    best = done(engine, ask(PROMPT, n=2, best_of=5, **asked)).choices

    def mass(one: Any) -> float:
        return float(sum(token.logprob for token in one.logprobs)) / len(one.tokens)

    ranked = sorted(every, key=mass, reverse=True)[:2]
    assert [list(c.tokens) for c in best] == [list(c.tokens) for c in ranked]
    assert [c.index for c in best] == [0, 1]


def test_the_most_urgent_is_served_first_whatever_came_before(ops: OpTable, llama: Path) -> None:
    engine = Engine(ops, 5)
    engine.load("m", source_of(llama), LoadSettings(), silent)
    asked = [replace(ask([at, *PROMPT], f"b{at}", max_tokens=1), work_class="batch") for at in range(40)]
    asked += [replace(ask([100, *PROMPT], "high", max_tokens=1), work_class="batch", priority=3)]
    asked += [ask([101, *PROMPT], "now", max_tokens=1)]
    for request in asked:
        engine.submit(request)
    order: list[str] = []
    while len(order) < len(asked):
        order += [event.request for event in engine.step()]
    assert set(order[:2]) == {"now", "high"} or order[0] == "now"
    assert order.index("high") < 14, "the first step has room for thirteen others"


def batch_fills_all_rows(engine: Engine, rows: int = 2, tokens: int = 24) -> list[Any]:
    """So many requests of lower work decode, and there are rows for no more."""
    scheduler = runner(engine)._scheduler
    scheduler._limits = replace(scheduler._limits, rows=rows, least=1)
    asked = [ask([at + 3, *PROMPT], f"b{at}", max_tokens=tokens, temperature=1.1, seed=at) for at in range(rows)]
    asked = [replace(request, work_class="batch", stream=True) for request in asked]
    for request in asked:
        engine.submit(request)
    for _ in range(4):
        engine.step()
    return asked


def test_an_interactive_request_begins_in_the_next_step_and_what_it_parks_goes_on_unchanged(
    ops: OpTable, llama: Path
) -> None:
    engine = Engine(ops)
    engine.load("m", source_of(llama), LoadSettings(), silent)
    asked = batch_fills_all_rows(engine)
    engine.submit(ask(PROMPT[:6], "urgent", max_tokens=5, stream=True))
    engine.step()
    assert len(runner(engine)._jobs["urgent"].choices[0].answer.tokens) == 1, "its first token comes with the next step"
    ended = [event for _ in range(80) for event in engine.step() if isinstance(event, DoneEvent)]
    assert [event.request for event in ended] == ["urgent", "b0", "b1"] or ended[0].request == "urgent"
    assert sorted(event.request for event in ended) == ["b0", "b1", "urgent"], "each ends once"
    for request in asked:
        alone = done(engine, replace(request, id="alone", stream=False))
        (parked,) = [event for event in ended if event.request == request.id]
        assert parked.choices == alone.choices
        assert parked.cached_tokens == 0 and parked.new_tokens == 24


def test_an_interactive_request_begins_in_the_next_step_although_batch_work_holds_all_pages(
    ops: OpTable, llama: Path
) -> None:
    again = 200
    engine = Engine(ops)
    engine.load("m", source_of(llama), LoadSettings(), silent)
    engine.set_budget({"recompute_tokens": again})
    blocks = runner(engine)._blocks
    asked = [ask([at + 3, *PROMPT], f"b{at}", max_tokens=100, temperature=1.1, seed=at) for at in range(8)]
    asked = [replace(request, work_class="batch") for request in asked]
    for request in asked:
        engine.submit(request)
    while blocks.available > 2:
        engine.step()
    ended: list[DoneEvent] = []
    computed: dict[str, int] = {}
    for at in range(3):
        engine.submit(ask([at + 90, *PROMPT, *PROMPT], f"now{at}", max_tokens=6, stream=True))
        events = engine.step()
        assert [event.request for event in events if isinstance(event, ChunkEvent)] == [f"now{at}"]
        while f"now{at}" not in {event.request for event in ended}:
            ended += [event for event in engine.step() if isinstance(event, DoneEvent)]
    assert not computed and runner(engine).busy, "batch work is not through yet"
    while runner(engine).busy:
        computed.update({id: used.tokens for id, used in engine.usage().items()})
        ended += [event for event in engine.step() if isinstance(event, DoneEvent)]
    assert sorted(event.request for event in ended) == sorted([*(r.id for r in asked), "now0", "now1", "now2"])
    lost = {id: tokens + 1 - (len(PROMPT) + 1 + 100 - 1) for id, tokens in computed.items()}
    assert 0 < max(lost.values()) <= again and min(lost.values()) <= 0, "some lost pages, and no more than they may"
    for request in asked:
        (event,) = [event for event in ended if event.request == request.id]
        assert event.choices == done(engine, replace(request, id="alone")).choices


def test_a_request_of_many_classes_reports_what_it_uses(engine: Engine) -> None:
    engine.submit(ask(PROMPT, "a", max_tokens=6))
    engine.step()
    engine.step()
    (used,) = engine.usage().values()
    assert used.device_ns > 0 and used.tokens == len(PROMPT) + 1 and used.bytes > 0
    (end,) = [event for _ in range(9) for event in engine.step() if isinstance(event, DoneEvent)]
    assert end.device_ns > used.device_ns and engine.usage() == {}


def test_a_request_that_is_preempted_lets_its_class_go_first(ops: OpTable, llama: Path) -> None:
    engine = Engine(ops)
    engine.load("m", source_of(llama), LoadSettings(), silent)
    batch_fills_all_rows(engine)
    engine.submit(replace(ask(PROMPT, "third", max_tokens=2), work_class="batch"))
    engine.preempt("b0")
    ended = [event.request for _ in range(80) for event in engine.step() if isinstance(event, DoneEvent)]
    assert ended[0] == "third" and sorted(ended) == ["b0", "b1", "third"]
    with pytest.raises(NotFound):
        engine.preempt("b0")


def test_a_request_is_given_up_at_its_deadline(engine: Engine) -> None:
    late = replace(ask(PROMPT, "late"), deadline=time.monotonic() - 1)
    events = run(engine, [late, replace(ask(PROMPT, "soon", max_tokens=2), deadline=time.monotonic() + 600)])
    assert isinstance(events["late"][-1], FailedEvent) and isinstance(events["late"][-1].error, TimedOut)
    assert last(events["soon"]).new_tokens == 2


def test_streams_of_several_answers_are_told_apart(engine: Engine) -> None:
    events = run(engine, [ask(PROMPT, "r", max_tokens=6, n=2, temperature=1.5, seed=1, stream=True)])["r"]
    result = last(events)
    for made in result.choices:
        pieces = [event for event in events if isinstance(event, ChunkEvent) and event.index == made.index]
        assert [token for piece in pieces for token in piece.tokens] == list(made.tokens)
        assert "".join(piece.text for piece in pieces) == made.text


@pytest.mark.parametrize("prefill_tokens", [5, 512])
def test_log_probabilities_of_the_prompt_are_the_models(ops: OpTable, llama: Path, prefill_tokens: int) -> None:
    engine = Engine(ops, prefill_tokens)
    engine.load("m", source_of(llama), LoadSettings(), silent)
    done(engine, ask(PROMPT, max_tokens=1))  # a prefix that must not be used
    result = done(engine, ask(PROMPT, max_tokens=2, prompt_logprobs=2))
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    with torch.inference_mode():
        expected = model(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
    assert result.prompt_logprobs is not None
    assert [told.token for told in result.prompt_logprobs] == list(PROMPT[1:])
    for at, told in enumerate(result.prompt_logprobs):
        assert told.logprob == pytest.approx(float(expected[at, told.token]), abs=1e-4)
        assert [token for token, _, _ in told.top] == expected[at].topk(2).indices.tolist()


def test_a_cancelled_request_leaves_nothing_and_disturbs_nobody(engine: Engine) -> None:
    free = runner(engine)._blocks.available
    expected = choice(engine, ask(PROMPT, max_tokens=10))
    engine.submit(ask(PROMPT, "a", max_tokens=10))
    engine.submit(ask(OTHERS[3], "b", max_tokens=100, n=2, temperature=1.0))
    engine.step()
    engine.step()
    engine.cancel("b")
    events = [event for _ in range(12) for event in engine.step()]
    ended = {event.request: event for event in events if isinstance(event, DoneEvent)}
    assert {made.reason for made in ended["b"].choices} == {"cancelled"}
    assert ended["a"].choices[0] == expected
    assert runner(engine)._blocks.available == free and not runner(engine).busy


def test_conversations_give_way_to_requests_and_go_on_after(ops: OpTable, llama: Path) -> None:
    engine = Engine(ops)
    engine.load("m", source_of(llama), LoadSettings(), silent)
    found = runner(engine)
    names = [f"c{at}" for at in range(80)]
    for name in names:
        engine.open_context(name, "m", "", 0)
        done(engine, ask([*PROMPT, names.index(name)], context=name, max_tokens=1))
    assert 0 < len(found._resting) < len(names)
    asked = {name: done(engine, ask([7], context=name, max_tokens=4)) for name in (names[0], names[-1])}
    for name, result in asked.items():
        before = [*PROMPT, names.index(name)]
        before += choice(engine, ask(before, max_tokens=1)).tokens
        assert result.choices == done(engine, ask([*before, 7], max_tokens=4)).choices


def test_bytes_stay_those_of_the_pool(engine: Engine) -> None:
    def held() -> list[int]:
        return [row.allocator for row in engine.memory()]

    before = held()
    engine.open_context("c", "m", "", 0)
    done(engine, ask(PROMPT, context="c", max_tokens=3))
    assert held() == before and [row.what for row in engine.memory()].count("kv") == 1
    rows = {row.what: row for row in engine.memory()}
    assert rows["kv"].predicted == rows["kv"].allocator


def test_the_whole_context_can_be_used(engine: Engine) -> None:
    result = done(engine, ask(PROMPT, max_tokens=1000))
    assert result.new_tokens == CONTEXT - len(PROMPT) and result.choices[0].reason == "length"


def test_a_failed_row_ends_its_request_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = choice(engine, ask(PROMPT, max_tokens=4))
    excluded = dict.fromkeys(range(320), float("-inf"))
    events = run(engine, [ask(PROMPT, "a", max_tokens=4), ask(PROMPT, "b", max_tokens=4, logit_bias=excluded)])
    assert isinstance(events["b"][-1], FailedEvent)
    assert last(events["a"]).choices[0] == expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guessing_ahead_changes_nothing_but_the_steps(engine: Engine, temperature: float) -> None:
    prompt = [*PROMPT, *PROMPT, *PROMPT[:5]]
    asked: dict[str, Any] = {"max_tokens": 30, "temperature": temperature, "seed": 3, "logprobs": 1}
    plain = done(engine, ask(prompt, **asked))
    guessed = done(engine, ask(prompt, **asked, speculative={"method": "ngram", "tokens": 5}))
    assert [c.tokens for c in guessed.choices] == [c.tokens for c in plain.choices]
    assert plain.accepted_tokens == 0 and guessed.choices[0].text == plain.choices[0].text


def test_right_guesses_save_steps_and_are_counted(engine: Engine) -> None:
    """A model that is made to repeat itself is guessed right."""
    liked = dict.fromkeys((7, 9), 100.0)
    asked: dict[str, Any] = {"max_tokens": 24, "logit_bias": liked, "frequency_penalty": 0.1}
    engine.submit(ask([7, 9] * 9, "plain", **asked))
    plain = _until_done(engine)
    engine.submit(ask([7, 9] * 9, "guessed", **asked, speculative={"tokens": 4}))
    guessed = _until_done(engine)
    assert guessed[1].choices == plain[1].choices
    assert guessed[1].accepted_tokens > 4 and guessed[0] < plain[0]


def _until_done(engine: Engine) -> tuple[int, DoneEvent]:
    for count in range(1, 1000):
        for event in engine.step():
            if isinstance(event, DoneEvent):
                return count, event
    raise AssertionError("never done")

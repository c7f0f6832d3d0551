"""The generating runner: flights of equal settings that take turns, and ends of every kind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from tiny_kinds import SENTENCES, answer, ask, build, generate_runner, load, pair_tokenizer, save
from tiny_models import finish

from llmos.drivers.contract import ChunkEvent, DoneEvent, FailedEvent, Request, StepEvent
from llmos.drivers.engine.generating import FLIGHTS, GenerateRunner
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.runner import Conversation
from llmos.syscalls.errors import BadArgument, NoDeviceMemory, NotSupported, TimedOut

TASK = "text2text-generation"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("m")
    config = transformers.BartConfig(
        vocab_size=320, pad_token_id=0, eos_token_id=3, bos_token_id=2, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
        decoder_start_token_id=2, forced_bos_token_id=None, forced_eos_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip
    return load(save(folder, build(config, "BartForConditionalGeneration", 1), pair_tokenizer()))


@pytest.fixture
def runner(bundle: Bundle) -> Iterator[GenerateRunner]:
    made = generate_runner(bundle)
    with torch.inference_mode():
        yield made
    made.close()
    assert not any(thread.name == "stepped" for thread in threading.enumerate())


def write(text: str, id: str = "r", most: int = 8, **sampling: Any) -> Request:
    return ask(text, TASK, id, sampling={"max_tokens": most, "ignore_eos": True, **sampling})


def until_idle(runner: GenerateRunner) -> list[StepEvent]:
    events: list[StepEvent] = []
    for _ in range(1000):
        if not runner.busy:
            return events
        events += runner.step()
    raise AssertionError("it does not end")


def test_a_step_is_one_token_of_one_flight(runner: GenerateRunner) -> None:
    runner.submit(write("fox", most=5))
    assert runner.busy and [request.id for request in runner.requests()] == ["r"]
    assert runner.step_seconds() > 0 and runner.kv_bytes() == 0
    held = []
    for _ in range(4):
        assert runner.step() == []
        held.append(runner.kv_bytes())
        assert runner.step_seconds() > 0
    assert held == sorted(held) and held[0] > 0
    (event,) = runner.step()
    assert isinstance(event, DoneEvent) and event.new_tokens == 5
    assert not runner.busy and runner.kv_bytes() == 0 and runner.step_seconds() == 0.0


def test_equal_settings_fly_together_and_others_take_turns(runner: GenerateRunner) -> None:
    for at in range(3):
        runner.submit(write(SENTENCES[at], f"a{at}", 6))
    runner.submit(write("fox", "b", 2))
    order = [event.request for event in until_idle(runner) if isinstance(event, DoneEvent)]
    assert order[0] == "b" and sorted(order) == ["a0", "a1", "a2", "b"]


def test_no_more_flights_than_places(runner: GenerateRunner) -> None:
    for at in range(FLIGHTS + 2):
        runner.submit(write("fox", str(at), 3 + at))
    for _ in range(FLIGHTS + 1):
        runner.step()
    assert len(runner._flights) == FLIGHTS and len(runner._waiting) == 2
    assert len([event for event in until_idle(runner) if isinstance(event, DoneEvent)]) == FLIGHTS + 2


def test_a_higher_class_flies_first_and_a_lower_one_gets_its_part(runner: GenerateRunner) -> None:
    for at in range(FLIGHTS):
        runner.submit(replace(write("fox", f"low{at}", 9 + at), work_class="batch"))
    for _ in range(FLIGHTS):
        runner.step()
    runner.set_budget({"batch": 0.0})
    runner.submit(write("dog", "high", 4))
    used = runner.usage()
    assert used["low0"].device_ns > 0 and used["high"].device_ns == 0
    assert [event.request for _ in range(4) for event in runner.step()] == ["high"], "although all flights are taken"
    assert {id: each for id, each in runner.usage().items() if id != "high"} == {
        id: each for id, each in used.items() if id != "high"
    }
    assert len(until_idle(runner)) == FLIGHTS
    runner.set_budget({})
    runner.submit(replace(write("fox", "low", 30), work_class="background"))
    runner.submit(write("dog", "high", 30))
    runner.step()
    runner.step()
    assert runner.usage()["low"].tokens > 0, "it was owed something"
    assert runner.preempt("low") and not runner.preempt("nobody")
    until_idle(runner)


def test_a_request_that_waits_lets_others_go_first(runner: GenerateRunner) -> None:
    for at in range(FLIGHTS + 2):
        runner.submit(write("fox", str(at), 3 + at))
    runner.step()
    waiting = [each.pending.request.id for each in runner._waiting]
    assert runner.preempt(waiting[0])
    assert [each.pending.request.id for each in runner._waiting] == [*waiting[1:], waiting[0]]
    until_idle(runner)


def test_answers_that_end_early_are_told_at_once(runner: GenerateRunner) -> None:
    alone = [answer(runner, text, TASK, sampling={"max_tokens": 12, "ignore_eos": True}) for text in SENTENCES[:2]]
    stop = alone[0].choices[0].tokens[3]
    requests = [write(SENTENCES[0], "a", 12, stop_token_ids=[stop]), write(SENTENCES[1], "b", 12)]
    events = finish(runner, *requests)
    (first,) = events["a"]
    assert isinstance(first, DoneEvent) and first.choices[0].reason == "stop"
    assert first.choices[0].tokens == alone[0].choices[0].tokens[: len(first.choices[0].tokens)]
    (second,) = events["b"]
    assert isinstance(second, DoneEvent) and second.choices[0].tokens == alone[1].choices[0].tokens


def test_text_is_streamed_and_adds_up(runner: GenerateRunner) -> None:
    request = ask(SENTENCES[0], TASK, sampling={"max_tokens": 10, "ignore_eos": True}, stream=True)
    *chunks, last = finish(runner, request)["r"]
    assert isinstance(last, DoneEvent) and len(chunks) >= 2
    assert "".join(each.text for each in chunks if isinstance(each, ChunkEvent)) == last.choices[0].text
    assert [token for each in chunks if isinstance(each, ChunkEvent) for token in each.tokens] == last.choices[0].tokens


def test_cancelled_requests_end_with_what_they_have(runner: GenerateRunner) -> None:
    runner.submit(write("fox", "a", 9))
    runner.submit(write("dog", "b", 9))
    for _ in range(3):
        runner.step()
    runner.submit(write("text", "late", 9))
    gone = runner.cancel(["a", "late", "unknown"])
    ended = {event.request: event.choices[0] for event in gone if isinstance(event, DoneEvent)}
    assert (len(ended["a"].tokens), ended["a"].reason) == (3, "cancelled")
    assert (len(ended["late"].tokens), ended["late"].reason) == (0, "cancelled")
    (left,) = until_idle(runner)
    assert isinstance(left, DoneEvent) and (left.request, left.new_tokens) == ("b", 9)
    runner.submit(write("fox", "c", 9))
    runner.step()
    runner.cancel(["c"])
    assert not runner.busy


def test_no_tokens_are_made_when_none_are_asked_for(runner: GenerateRunner) -> None:
    (event,) = finish(runner, write("fox", most=0))["r"]
    assert isinstance(event, DoneEvent)
    assert (event.choices[0].tokens, event.choices[0].reason) == ([], "length")


FAULTS = [(ValueError("not this"), BadArgument), (MemoryError(), NoDeviceMemory)]


@pytest.mark.parametrize(("fault", "told"), FAULTS)
def test_the_error_of_one_ends_only_that_one(
    runner: GenerateRunner, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, fault: Exception, told: type[Exception]
) -> None:
    generate = bundle.module.generate

    def failing(**given: Any) -> Any:
        if 42 in given["input_ids"]:
            raise fault
        return generate(**given)

    monkeypatch.setattr(bundle.module, "generate", failing)
    asked = {"max_tokens": 4, "ignore_eos": True}
    requests = [ask([2, 40 + at, 3], TASK, str(at), sampling=asked) for at in range(4)]
    events = finish(runner, *requests)
    failed = events.pop("2")[0]
    assert isinstance(failed, FailedEvent) and type(failed.error) is told
    assert all(isinstance(each[0], DoneEvent) and each[0].new_tokens == 4 for each in events.values())


def test_what_was_streamed_is_not_begun_again(
    runner: GenerateRunner, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        ask(SENTENCES[at], TASK, str(at), sampling={"max_tokens": 6, "ignore_eos": True}, stream=at == 0)
        for at in range(2)
    ]
    for request in requests:
        runner.submit(request)
    for _ in range(3):
        runner.step()
    monkeypatch.setattr(bundle.module, "prepare_inputs_for_generation", _refuse)
    failed = runner.step()
    monkeypatch.undo()
    (event,) = failed
    assert isinstance(event, FailedEvent) and event.request == "0"
    (again,) = until_idle(runner)
    assert isinstance(again, DoneEvent) and (again.request, again.new_tokens) == ("1", 6)


def _refuse(*_given: Any, **_more: Any) -> Any:
    raise ValueError("no more")


def test_a_fault_of_the_device_is_not_blamed_on_the_input(
    runner: GenerateRunner, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_given: Any) -> Any:
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(bundle.module, "generate", broken)
    runner.submit(write("fox"))
    with pytest.raises(RuntimeError, match="illegal"):
        runner.step()


def test_a_deadline_ends_what_waits_and_what_runs(runner: GenerateRunner) -> None:
    soon = time.monotonic() + 3600.0
    runner.submit(write("fox", "fine"))
    late = ask("dog", TASK, "late", sampling={"max_tokens": 8, "ignore_eos": True})
    runner.submit(Request(**{**vars(late), "deadline": time.monotonic()}))
    runner.submit(Request(**{**vars(late), "id": "later", "deadline": soon}))
    events = {event.request: event for event in until_idle(runner)}
    failed = events.pop("late")
    assert isinstance(failed, FailedEvent) and type(failed.error) is TimedOut
    assert set(events) == {"fine", "later"}


@pytest.mark.parametrize(
    ("sampling", "error"),
    [({"prompt_logprobs": 1}, NotSupported), ({"speculative": {"method": "ngram"}}, NotSupported),
     ({"temperature": -1.0}, BadArgument), ({"beams": 2, "temperature": 1.0}, BadArgument)],
)  # fmt: skip
def test_sampling_that_is_not_offered_is_refused(
    runner: GenerateRunner, sampling: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        runner.submit(ask("fox", TASK, sampling=sampling))
    assert not runner.busy


def test_conversations_are_not_kept(runner: GenerateRunner) -> None:
    conversation = Conversation("c", "m", 10)
    with pytest.raises(BadArgument, match="no conversation"):
        runner.submit(write("fox"), conversation)
    runner.fork(conversation, conversation)
    assert runner.conversation_bytes(conversation) == runner.forget(conversation) == 0

"""The forward runner: batches of many requests, one answer each, errors that stay alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_kinds import SENTENCES, answer, answers, ask, forward_runner, labels, load, ops, text_model

from llmos.drivers.contract import DoneEvent, FailedEvent, Request
from llmos.drivers.engine.forward import STEP_SECONDS, ForwardRunner
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.pace import Pace
from llmos.drivers.engine.runner import Conversation
from llmos.drivers.engine.shared import SharedModule
from llmos.drivers.engine.tasks.embeddings import Embeddings
from llmos.drivers.engine.tasks.offered import offered
from llmos.drivers.engine.tasks.text import TextFront
from llmos.syscalls.errors import BadArgument, NoDeviceMemory

TASK = "text-classification"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("m")
    return load(text_model(folder, "BertForSequenceClassification", varied=True, **labels("a", "b", "c")))


class Watched:
    """A runner whose batches are noted; `faults` happen before batches that hold a certain token."""

    def __init__(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, faults: dict[int, Exception] | None = None):
        self.batches: list[list[int]] = []
        self.runner = forward_runner(bundle)
        forward = bundle.module.forward

        def noted(input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any) -> Any:
            self.batches.append(sorted(attention_mask.sum(dim=1).tolist()))
            for token, fault in (faults or {}).items():
                if token in input_ids:
                    raise fault
            return forward(input_ids=input_ids, attention_mask=attention_mask, **more)

        monkeypatch.setattr(bundle.module, "forward", noted)


def requests(count: int, length: int = 5) -> list[Request]:
    return [ask([2, *[40 + at % 100] * length, 3], TASK, str(at)) for at in range(count)]


def test_requests_that_wait_share_one_batch(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(bundle, monkeypatch)
    assert len(answers(watched.runner, requests(40))) == 40
    assert watched.batches == [[7] * 40]


def test_lengths_apart_go_in_batches_of_their_own(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(bundle, monkeypatch)
    mixed = [ask([2, *[50] * length, 3], TASK, f"{length}-{at}") for length in (3, 100) for at in range(8)]
    answers(watched.runner, mixed)
    assert watched.batches == [[5] * 8, [102] * 8]


def test_a_step_ends_what_it_computed_and_tells_its_cost(bundle: Bundle) -> None:
    runner = forward_runner(bundle)
    for request in requests(3):
        runner.submit(request)
    assert runner.busy and [request.id for request in runner.requests()] == ["0", "1", "2"]
    with torch.inference_mode():
        events = runner.step()
    assert {event.request for event in events} == {"0", "1", "2"} and not runner.busy
    for event in events:
        assert isinstance(event, DoneEvent)
        assert event.prompt_tokens == 7 and event.device_ns > 0
    assert runner.step_seconds() == 0.0 == runner.kv_bytes()


def test_a_request_of_many_lines_is_answered_once_when_all_are_through(bundle: Bundle) -> None:
    front = TextFront(bundle)
    pace = Pace(10**12)  # believed so slow that each line is a batch
    runner = ForwardRunner(SharedModule(bundle.module), [Embeddings(front, ops())], pace)
    runner.submit(ask(SENTENCES[:3], "feature-extraction"))
    with torch.inference_mode():
        assert runner.step() == []
        while runner.busy:
            events = runner.step()
    (event,) = events
    assert isinstance(event, DoneEvent) and event.embeddings is not None and len(event.embeddings) == 3


def test_a_higher_class_shares_no_batch_with_a_lower_one_and_goes_first(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(bundle, monkeypatch)
    watched.runner.set_budget({"batch": 0.0})
    low = [replace(request, id=f"low{request.id}", work_class="batch") for request in requests(6, 4)]
    for request in [*low, *requests(3)]:
        watched.runner.submit(request)
    with torch.inference_mode():
        first = {event.request for event in watched.runner.step()}
        assert first == {"0", "1", "2"} and watched.runner.preempt("low0") and not watched.runner.preempt("0")
        assert watched.runner._waiting[-1].pending.request.id == "low0"
        watched.runner.step()
    assert watched.batches == [[7] * 3, [6] * 6] and not watched.runner.busy


def test_a_lower_class_is_owed_a_batch(bundle: Bundle) -> None:
    runner = ForwardRunner(SharedModule(bundle.module), [Embeddings(TextFront(bundle), ops())], Pace(10**12))
    runner.submit(replace(ask(SENTENCES[:2], "feature-extraction", "low"), work_class="background"))
    runner.submit(ask(SENTENCES[:3], "feature-extraction", "high"))
    with torch.inference_mode():
        runner.step()
        assert runner.usage()["low"].tokens == 0 < runner.usage()["high"].tokens
        ended = {event.request for event in runner.step()}
    assert "low" in ended or runner.usage()["low"].device_ns > 0


def test_a_slow_model_gets_small_batches(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(bundle, monkeypatch)
    pace = Pace(1)
    for _ in range(50):
        pace.observe(1000, 1000 * STEP_SECONDS / 20)
    watched.runner = ForwardRunner(SharedModule(bundle.module), offered(bundle, ops()), pace)
    del watched.batches[:]
    for request in requests(10):
        watched.runner.submit(request)
    assert watched.runner.step_seconds() <= STEP_SECONDS
    with torch.inference_mode():
        watched.runner.step()
    assert watched.batches == [[7, 7]]


def test_cancelled_requests_leave_the_others_alone(bundle: Bundle) -> None:
    runner = forward_runner(bundle)
    for request in requests(3):
        runner.submit(request)
    (gone,) = runner.cancel(["1", "nobody"])
    assert isinstance(gone, DoneEvent) and (gone.request, gone.choices[0].reason) == ("1", "cancelled")
    with torch.inference_mode():
        assert {event.request for event in runner.step()} == {"0", "2"}
    assert not runner.busy


ERRORS: Sequence[tuple[Exception, type[Exception]]] = [
    (ValueError("not these"), BadArgument), (BadArgument("not these"), BadArgument),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), NoDeviceMemory), (MemoryError(), NoDeviceMemory),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "told"), ERRORS)
def test_the_error_of_one_ends_only_that_one(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, fault: Exception, told: type[Exception]
) -> None:
    watched = Watched(bundle, monkeypatch, {42: fault})
    for request in requests(5):
        watched.runner.submit(request)
    events = []
    with torch.inference_mode():
        while watched.runner.busy:
            events += watched.runner.step()
    assert [len(batch) for batch in watched.batches] == [5, 1, 1, 1, 1, 1]
    ended = {event.request: event for event in events}
    failed = ended.pop("2")
    assert isinstance(failed, FailedEvent) and type(failed.error) is told
    assert len(ended) == 4 and all(isinstance(event, DoneEvent) for event in ended.values())


def test_a_fault_of_the_device_is_not_blamed_on_the_input(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(bundle, monkeypatch, {42: RuntimeError("illegal instruction")})
    watched.runner.submit(ask([2, 42, 3], TASK))
    with pytest.raises(RuntimeError, match="illegal"), torch.inference_mode():
        watched.runner.step()


def test_conversations_are_not_kept(bundle: Bundle) -> None:
    runner, conversation = forward_runner(bundle), Conversation("c", "m", 10)
    with pytest.raises(BadArgument, match="no conversation"):
        runner.submit(ask("fox", TASK), conversation)
    runner.fork(conversation, conversation)
    assert runner.conversation_bytes(conversation) == runner.forget(conversation) == 0


def test_closing_drops_everything(bundle: Bundle) -> None:
    runner = forward_runner(bundle)
    runner.submit(ask("fox", TASK))
    runner.close()
    assert not runner.busy and not runner.requests()


def test_bf16_models_answer_alike_in_any_batch(tmp_path: Path) -> None:
    folder = text_model(tmp_path, "BertForSequenceClassification", varied=True, **labels("a", "b", "c"))
    runner = forward_runner(load(folder, dtype="bfloat16"))
    together = answers(runner, [ask(text, TASK, text) for text in SENTENCES])
    for text, event in zip(SENTENCES, together, strict=True):
        alone: Any = answer(runner, text, TASK).result
        batched: Any = event.result
        known = {each.label: each.score for each in alone.labels}
        assert {each.label: each.score for each in batched.labels} == pytest.approx(known, abs=0.02)

"""Inference through the kernel, with a scripted device."""

from __future__ import annotations

import pytest
from scripted import Inside, Program, inference

from llmos.syscalls.errors import BadState, Cancelled, NotFound, WrongKind
from llmos.syscalls.types import Right


@pytest.fixture
def model(program: Program) -> int:
    return program.load("tiny")


def text_of(value: dict) -> str:
    text: str = value["choices"][0]["text"]
    return text


def in_context(program: Program, model: int, context: int, text: str = "go on") -> int:
    return program.send("infer", model=model, input={"type": "text", "text": text}, context=context)


def test_an_inference_is_answered_with_what_the_device_says(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "hello")
    kernel.now += 5_000
    kernel.null.release("submit", inference("there"))
    value = program.wait(number).value
    assert text_of(value) == "there"
    assert value["model_version"] == "1"
    assert value["timing"]["total"] == 5_000


def test_a_stream_delivers_chunks_and_ends_with_the_whole(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "hello", "infer_stream")
    kernel.now += 1_000
    kernel.null.chunk({"index": 0, "text": "a", "tokens": [1]}, {"index": 0, "text": "b", "tokens": [2]})
    kernel.now += 1_000
    kernel.null.release("submit", inference("ab"))
    answer = program.wait(number)
    assert (answer.text, text_of(answer.value)) == ("ab", "ab")
    assert answer.value["timing"]["first"] == 1_000


def test_a_reader_without_credit_gets_the_rest_merged(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "hello", "infer_stream", call_credit=1)
    for text in "abc":
        kernel.null.chunk({"index": 0, "text": text, "tokens": [1]})
    kernel.null.release("submit", inference("abc"))
    answer = program.wait(number)
    assert [chunk["text"] for chunk in answer.chunks] == ["a", "bc"]


def test_embeddings_are_a_task_with_options_of_their_own(kernel: Inside, program: Program, model: int) -> None:
    number = program.send("embed", model=model, input={"type": "text", "text": "x"}, options={"pooling": "mean"})
    work = kernel.null.last("submit")["work"]
    assert (work["task"], work["embed"]["pooling"]) == ("feature-extraction", "mean")
    kernel.null.release("submit")
    assert program.wait(number).value["id"] != ""


def test_a_conversation_grows(kernel: Inside, program: Program, model: int) -> None:
    context = program.call("open_context", model=model, max_tokens=16)
    number = in_context(program, model, context["handle"])
    assert kernel.null.last("submit")["work"]["context"] == context["id"]
    kernel.null.release("submit", inference(new=2, prompt=3))
    program.wait(number)
    assert program.call("stat_object", handle=context["handle"])["fields"]["tokens"] == 5


def test_only_one_request_at_a_time_extends_a_conversation(kernel: Inside, program: Program, model: int) -> None:
    context = program.call("open_context", model=model)["handle"]
    first = in_context(program, model, context)
    error = program.error("infer", model=model, input={"type": "text", "text": "x"}, context=context)
    assert isinstance(error, BadState) and error.state == "busy"
    assert isinstance(program.error("open_context", model=model, parent=context), BadState)
    kernel.null.release("submit")
    program.wait(first)
    again = in_context(program, model, context)
    kernel.null.release("submit")
    program.wait(again)


def test_a_copy_of_a_conversation_knows_its_parent(kernel: Inside, program: Program, model: int) -> None:
    parent = program.call("open_context", model=model)
    copy = program.call("open_context", model=model, parent=parent["handle"])
    assert copy["parent"] == parent["id"] == kernel.null.last("open_context")["parent"]
    number = in_context(program, model, parent["handle"])
    kernel.null.release("submit")
    assert program.wait(number).error is None


def test_a_conversation_belongs_to_its_model(kernel: Inside, program: Program, model: int) -> None:
    other = program.load("other")
    context = program.call("open_context", model=model)["handle"]
    error = program.error("infer", model=other, input={"type": "text", "text": "x"}, context=context)
    assert isinstance(error, BadState) and "belongs to model tiny" in str(error)


def test_a_dropped_conversation_says_so(kernel: Inside, program: Program, model: int) -> None:
    context = program.call("open_context", model=model)["handle"]
    copy = program.call("dup_handle", handle=context, rights=list(Right))["handle"]
    kernel.kernel.holdings.contexts_lost(next(iter(kernel.kernel.models.by_id.values())), "test")
    error = program.error("infer", model=model, input={"type": "text", "text": "x"}, context=copy)
    assert isinstance(error, BadState) and error.state == "lost"


def test_a_conversation_that_the_device_refuses_is_not_there(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.answers["open_context"] = BadState("no", state="full")
    parent_free = program.error("open_context", model=model)
    assert isinstance(parent_free, BadState)
    assert program.names("/proc/contexts") == []


def test_a_cancelled_request_that_runs_ends_with_what_the_device_answers(
    kernel: Inside, program: Program, model: int
) -> None:
    number = program.start(model, "hello", "infer_stream")
    program.cancel(number)
    assert kernel.null.names()[-1] == "cancel"
    assert not program.done(number)
    kernel.null.release("submit", inference("half"))
    assert text_of(program.wait(number).value) == "half"


def test_a_cancelled_request_that_waits_ends_with_an_error(kernel: Inside, program: Program, model: int) -> None:
    running = [program.start(model, "a"), program.start(model, "b")]
    waiting = program.start(model, "c")
    program.cancel(waiting)
    assert isinstance(program.wait(waiting).error, Cancelled)
    for number in running:
        kernel.null.release("submit")
        program.wait(number)


def test_handles_are_checked_before_anything_runs(kernel: Inside, program: Program, model: int) -> None:
    error = program.error("infer", model=program.system, input={"type": "text", "text": "x"})
    assert isinstance(error, WrongKind) and "submit" not in kernel.null.names()


def test_an_error_of_the_device_is_the_answer(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "x")
    kernel.null.release("submit", NotFound("no such model here"))
    answer = program.wait(number)
    assert isinstance(answer.error, NotFound)

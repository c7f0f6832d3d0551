"""One request, one answer: keys, cancels, deadlines, order in the queue, and what a reader has paid for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llmos.syscalls.errors import BadArgument, BadHandle, Busy, Cancelled, NotFound, OverQuota, TooLarge
from llmos.syscalls.wire import LIMITS
from system.kernel_process import KernelProcess, running
from system.model_folder import write_model
from system.puppet import puppet
from system.raw_client import RawClient

ENDLESS = {"ignore_eos": True, "max_tokens": 2000}
ONE_SLOT = "[drivers.null0.config]\nslots = 1\n[limits]\nstalled_reader_s = 3600\n"


@pytest.fixture(scope="module")
def one_slot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelProcess]:
    """A kernel whose model runs one request at a time."""
    folder = tmp_path_factory.mktemp("k")
    write_model(folder / "home/models/null")
    with running(folder, ONE_SLOT) as kernel, kernel.client() as client:
        client.await_driver("ready")
        client.load("null")
        yield kernel


@pytest.fixture
def client(one_slot: KernelProcess) -> Iterator[RawClient]:
    with one_slot.client() as client:
        yield client
        assert client.requests() == {}


@pytest.fixture
def model(client: RawClient) -> int:
    return client.load("null")


@pytest.fixture
def busy(client: RawClient, model: int) -> Iterator[int]:
    """A stream that has the only slot; it is cancelled at the end, if it still runs."""
    number = client.start(model, "!slow 1; busy", "infer_stream", call_credit=1, **ENDLESS)
    client.first_chunk(number)
    yield number
    client.cancel(number)
    assert client.wait(number).kind is not None


# ---- idempotency keys


def test_the_same_key_gives_one_execution(client: RawClient, model: int) -> None:
    before = client.call("stat_object", handle=model)["fields"]["requests"]
    first = client.wait(client.start(model, "once", call_key="k"))
    second = client.wait(client.start(model, "once", call_key="k"))
    assert first.value == second.value
    assert first.body["request"] == second.body["request"]
    assert client.call("stat_object", handle=model)["fields"]["requests"] == before + 1


def test_the_same_key_joins_what_runs(client: RawClient, model: int, busy: int) -> None:
    first = client.start(model, "joined", call_key="j")
    second = client.start(model, "joined", call_key="j")
    client.quiet()
    assert (client.answers[first].kind, client.answers[second].kind) == (None, None)
    client.cancel(busy)
    assert client.wait(first).value == client.wait(second).value
    client.quiet()


def test_a_joined_stream_brings_every_chunk_to_both(client: RawClient, model: int, busy: int) -> None:
    numbers = [client.start(model, "abc", "infer_stream", call_key="s") for _ in range(2)]
    client.quiet()
    client.cancel(busy)
    assert [client.wait(number).text for number in numbers] == ["abc", "abc"]


def test_the_key_of_a_failed_call_gives_the_same_error(client: RawClient) -> None:
    error = client.error("stat_path", path="/models/nothing", key="f")
    assert isinstance(error, NotFound)
    assert str(client.error("stat_path", path="/models/nothing", key="f")) == str(error)


def test_a_key_belongs_to_one_session(one_slot: KernelProcess, client: RawClient, model: int) -> None:
    mine = client.wait(client.start(model, "mine", call_key="same"))
    with one_slot.client() as other:
        theirs = other.wait(other.start(other.load("null"), "theirs", call_key="same"))
        assert theirs.value["choices"][0]["text"] == "theirs"
    assert mine.value["choices"][0]["text"] == "mine"


# ---- cancel


def test_cancel_of_a_waiting_request_is_an_error(client: RawClient, model: int, busy: int) -> None:
    waiting = client.start(model, "waits")
    client.quiet()
    client.cancel(waiting)
    assert isinstance(client.wait(waiting).error, Cancelled)
    client.quiet()


def test_cancel_of_a_running_request_gives_what_there_is(client: RawClient, busy: int) -> None:
    client.cancel(busy)
    answer = client.wait(busy)
    choice = answer.value["choices"][0]
    assert choice["reason"] == "cancelled"
    assert choice["text"] == answer.text
    client.quiet()


def test_cancel_by_id_from_another_session_of_the_user(one_slot: KernelProcess, client: RawClient, busy: int) -> None:
    request = client.request_id("infer_stream")
    with puppet(one_slot.socket) as other:
        other.hello()
        assert other.call("cancel_task", request=request) == {"id": request, "state": "cancelled"}
    assert client.wait(busy).value["choices"][0]["reason"] == "cancelled"


def test_cancel_twice_is_cancel_once(client: RawClient, busy: int) -> None:
    for _ in range(3):
        client.cancel(busy)
    assert client.wait(busy).value["choices"][0]["reason"] == "cancelled"
    client.quiet()


def test_cancel_task_takes_a_task_or_a_request(client: RawClient) -> None:
    assert isinstance(client.error("cancel_task"), BadArgument)
    assert isinstance(client.error("cancel_task", request="r-none-1"), NotFound)
    assert isinstance(client.error("cancel_task", task=4711), BadHandle)


# ---- order


def in_order(client: RawClient, numbers: dict[str, int]) -> list[str]:
    """The names of requests in the order of their answers."""
    done: list[str] = []
    while len(done) < len(numbers):
        client.receive()
        done += [name for name, number in numbers.items() if name not in done and client.answers[number].kind]
    return done


def test_work_class_goes_before_priority_and_priority_before_arrival(client: RawClient, model: int, busy: int) -> None:
    numbers = {
        "background": client.start(model, "x", call_work_class="background", call_priority=1000),
        "batch": client.start(model, "x", call_work_class="batch", call_priority=10),
        "batch first": client.start(model, "x", call_work_class="batch", call_priority=20),
        "low": client.start(model, "x", call_priority=-5),
        "normal": client.start(model, "x"),
        "later": client.start(model, "x"),
        "high": client.start(model, "x", call_priority=5),
    }
    client.quiet()
    client.cancel(busy)
    assert in_order(client, numbers) == ["high", "normal", "later", "low", "batch first", "batch", "background"]


def test_interactive_work_runs_while_batch_fills_the_only_slot(client: RawClient, model: int) -> None:
    """The device parks the batch request, which then goes on where it was: nothing is lost or comes twice."""
    batch = client.start(model, "!slow 1; x", "infer_stream", call_work_class="batch", call_credit=100, **ENDLESS)
    client.first_chunk(batch)
    answer = client.wait(client.start(model, "now", max_tokens=4))
    assert answer.error is None and answer.value["usage"]["new_tokens"] == 4
    assert client.answers[batch].kind is None, "it still runs"
    client.cancel(batch)
    ended = client.wait(batch)
    tokens = [token for chunk in ended.chunks for token in chunk["tokens"]]
    assert len(tokens) == ended.value["usage"]["new_tokens"] > 0


def test_why_a_request_waits_can_be_read(client: RawClient, model: int, busy: int) -> None:
    waiting = client.start(model, "x")
    client.quiet()
    assert client.requests() == {"infer_stream": "running", "infer": "waiting"}
    client.cancel(waiting)
    client.wait(waiting)


# ---- credit


def test_chunks_never_exceed_the_credit(client: RawClient, model: int) -> None:
    number = client.start(model, "!slow 1; abcdefghijklmnopqrstuvwxyz", "infer_stream", call_credit=2, **ENDLESS)
    answer = client.answers[number]
    paid = 2
    for more in (1, 3, 1):
        while len(answer.chunks) < paid:
            client.receive()
        for _ in range(20):
            client.quiet()
        assert len(answer.chunks) == paid
        client.credit(number, more)
        paid += more
    client.cancel(number)
    whole = client.wait(number).value["choices"][0]
    assert answer.text == whole["text"]
    assert [token for chunk in answer.chunks for token in chunk["tokens"]] == whole["tokens"]


def test_what_was_not_paid_for_comes_merged_before_the_end(client: RawClient, model: int) -> None:
    number = client.start(model, "abcdefgh", "infer_stream", call_credit=1)
    answer = client.wait(number)
    assert [chunk["text"] for chunk in answer.chunks] == ["a", "bcdefgh"]
    assert answer.value["choices"][0]["text"] == "abcdefgh"


def test_each_choice_keeps_its_own_backlog(client: RawClient, model: int) -> None:
    number = client.start(model, "abcd", "infer_stream", call_credit=1, n=2)
    answer = client.wait(number)
    for index in (0, 1):
        assert "".join(chunk["text"] for chunk in answer.chunks if chunk["index"] == index) == "abcd"
    assert len(answer.chunks) == 3


# ---- limits


def test_a_full_queue_is_busy(folder: Path) -> None:
    write_model(folder / "home/models/null")
    config = "[limits]\nqueued_requests = 2\n[drivers.null0.config]\nslots = 1\n"
    with running(folder, config) as kernel, kernel.client() as client:
        model = client.load("null")
        running_one = client.start(model, "!slow 1; x", "infer_stream", **ENDLESS)
        client.first_chunk(running_one)
        waiting = [client.start(model, "x") for _ in range(2)]
        error = client.wait(client.start(model, "x")).error
        assert isinstance(error, Busy)
        assert error.retry_after_ms >= 100
        client.cancel(running_one)
        for number in (running_one, *waiting):
            assert client.wait(number).error is None


def test_requests_in_flight_are_limited(one_slot: KernelProcess) -> None:
    with one_slot.client() as client:
        client.call("control_object", handle=client.handle, action="limit", options={"queued_requests": 2})
        watches = [client.send("watch_events", system=client.system) for _ in range(3)]
        error = client.wait(watches.pop()).error
        assert isinstance(error, OverQuota)
        assert (error.what, error.limit) == ("queued_requests", 2)
        for number in watches:
            client.cancel(number)
            assert client.wait(number).error is None


def test_a_prompt_at_the_limit_of_a_message_frees_its_slot(client: RawClient, model: int) -> None:
    for size in (LIMITS.message_bytes - 200, LIMITS.message_bytes - 120):
        error = client.wait(client.start(model, "x" * size)).error
        assert isinstance(error, TooLarge)
    assert client.infer(model, "next")["choices"][0]["text"] == "next"


@pytest.mark.slow
def test_a_backlog_larger_than_a_message_arrives_whole(client: RawClient) -> None:
    model = client.load("null", name="large", max_context=8000)
    many = {"n": 64, "logprobs": 1, "ignore_eos": True, "max_tokens": 3500}
    number = client.start(model, "x", "infer_stream", call_credit=1, **many)
    answer = client.wait(number)
    assert isinstance(answer.error, TooLarge)  # the whole result does not fit into the last message
    for index in range(64):
        assert sum(len(chunk["tokens"]) for chunk in answer.chunks if chunk["index"] == index) == 3500
    client.call("unload_model", model=model)

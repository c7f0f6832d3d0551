"""Threads that share one connection, and Ctrl-C in the middle of it."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from llmos.syscalls import calls
from llmos.syscalls.errors import PeerGone, TimedOut
from llmos.syscalls.types import Handle, ObjectInfo, Text
from llmos.userland.client import Client

STAT = calls.StatObject(handle=Handle(2))
STREAM = calls.InferStream(model=Handle(3), input=Text(text="a"))
INFO = ObjectInfo(id="system", kind="system", name="system", state="running")
END = {"id": "r1", "task": "t", "model_version": "v", "choices": []}


@pytest.fixture
def client(fake: Any) -> Any:
    with Client(fake.address, patience=0.2) as client:
        yield client


def in_threads(count: int, work: Any) -> list[Any]:
    results: list[Any] = [None] * count

    def run(place: int) -> None:
        results[place] = work(place)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_share_a_connection_and_get_their_own_answers(client: Client, fake: Any) -> None:
    fake.on("stat_path", lambda request: request.reply({"path": request.body["path"], "kind": "file"}))

    def work(place: int) -> bool:
        paths = [f"/{place}/{n}" for n in range(30)]
        return [client.call(calls.StatPath(path=path)).path for path in paths] == paths

    assert in_threads(8, work) == [True] * 8


def test_a_call_is_not_held_up_by_a_thread_that_waits_for_long(client: Client, fake: Any) -> None:
    fake.on("stat_object", lambda request: request.reply(INFO))
    waiting = client.submit(calls.WaitTask(task=Handle(9)))
    held = fake.calls.get()
    thread = threading.Thread(target=waiting.result)
    thread.start()
    for _ in range(20):
        assert client.call(STAT) == INFO
    held.reply({"id": "t", "state": "done"})
    thread.join()
    assert waiting.done


def test_every_thread_learns_that_the_kernel_is_gone(client: Client, fake: Any) -> None:
    def work(place: int) -> str:
        with pytest.raises(PeerGone) as caught:
            client.call(calls.WaitTask(task=Handle(9)))
        return str(caught.value)

    ending = threading.Thread(target=lambda: ([fake.calls.get() for _ in range(4)], fake.stop()))
    ending.start()
    assert all("wait_task" in text for text in in_threads(4, work))
    ending.join()


def test_closing_ends_the_waits_of_other_threads(client: Client, fake: Any) -> None:
    closer = threading.Thread(target=lambda: (fake.calls.get(), client.close()))
    closer.start()
    with pytest.raises(PeerGone, match="closed"):
        client.call(calls.WaitTask(task=Handle(9)))
    closer.join()


def test_many_calls_in_flight_are_answered_in_any_order(client: Client, fake: Any) -> None:
    answers = [client.submit(calls.StatPath(path=f"/{n}")) for n in range(50)]
    requests = [fake.calls.get() for _ in answers]
    for request in reversed(requests):
        request.reply({"path": request.body["path"], "kind": "file"})
    assert [answer.result().path for answer in answers] == [f"/{n}" for n in range(50)]
    assert answers[0].request == f"r{requests[0].number}" and not answers[0].reasons


def test_a_submitted_call_can_be_cancelled(client: Client, fake: Any) -> None:
    answer = client.submit(calls.WaitTask(task=Handle(9)))
    fake.on("cancel", lambda request: request.fail(TimedOut("ended")))
    answer.cancel()
    with pytest.raises(TimedOut, match="ended"):
        answer.result()


def interrupt_when(happened: Any) -> threading.Thread:
    """Ctrl-C once the stand-in kernel has got something."""
    thread = threading.Thread(target=lambda: (happened(), os.kill(os.getpid(), signal.SIGINT)))
    thread.start()
    return thread


def test_ctrl_c_cancels_the_request_and_the_connection_goes_on(client: Client, fake: Any) -> None:
    fake.on("cancel", lambda request: request.reply({"id": "t", "state": "cancelled"}))
    thread = interrupt_when(fake.calls.get)
    with pytest.raises(KeyboardInterrupt):
        client.call(calls.WaitTask(task=Handle(9)))
    thread.join()
    assert fake.cancels.get() > 0
    fake.on("stat_object", lambda request: request.reply(INFO))
    assert client.call(STAT) == INFO
    assert len(fake.hellos) == 1


def test_ctrl_c_in_a_long_wait_is_held_until_the_answer(client: Client, fake: Any) -> None:
    """After the first brief wait SIGINT is only noted: the handler in place says so."""
    fake.on("cancel", lambda request: request.reply({"id": "t", "state": "cancelled"}))

    def held() -> None:
        fake.calls.get()
        while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            pass

    thread = interrupt_when(held)
    with pytest.raises(KeyboardInterrupt):
        client.call(calls.WaitTask(task=Handle(9)))
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not client._pump.core.pending


def test_ctrl_c_in_a_stream_leaves_what_the_kernel_had_so_far(client: Client, fake: Any) -> None:
    fake.on("infer_stream", lambda request: request.chunk({"text": "a"}))
    fake.on("cancel", lambda request: request.end(END))
    stream = client.stream(STREAM)
    assert next(stream).text == "a"

    def waiting() -> None:
        while not client._pump._pumper:
            pass

    with pytest.raises(KeyboardInterrupt):
        thread = interrupt_when(waiting)
        next(stream)
    thread.join()
    assert stream.result.id == "r1"


def test_a_second_ctrl_c_does_not_wait_for_a_kernel_that_is_silent(client: Client, fake: Any) -> None:
    interrupts = threading.Thread(
        target=lambda: (
            fake.calls.get(), os.kill(os.getpid(), signal.SIGINT), fake.cancels.get(),
            os.kill(os.getpid(), signal.SIGINT),
        )
    )  # fmt: skip
    interrupts.start()
    with pytest.raises(KeyboardInterrupt):
        client.call(calls.WaitTask(task=Handle(9)))
    interrupts.join()
    assert not client._pump.core.pending


def test_an_exception_of_the_programs_own_signal_handler_abandons_the_request(client: Client, fake: Any) -> None:
    class Mine(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Mine

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        thread = threading.Thread(target=lambda: (fake.calls.get(), os.kill(os.getpid(), signal.SIGUSR1)))
        thread.start()
        with pytest.raises(Mine):
            client.call(calls.WaitTask(task=Handle(9)))
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert fake.cancels.get() > 0
    fake.on("stat_object", lambda request: request.reply(INFO))
    assert client.call(STAT) == INFO

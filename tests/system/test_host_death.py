"""kill -9 of a host at every moment: the kernel lives, each request has one answer, what waits runs later."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmos.syscalls.errors import BadState, PeerGone
from system.footprint import Footprint
from system.kernel_process import KernelProcess, kill, running
from system.model_folder import write_model
from system.raw_client import RawClient


def test_an_idle_host_is_restarted_at_once(client: RawClient) -> None:
    before = client.host()
    with client.driver_goes_through("backoff", "starting", "ready"):
        kill(before)
    driver = client.driver()
    assert driver["fields"]["pid"] not in (0, before)
    assert driver["fields"]["restarts"] == 1
    assert driver["fields"]["cause"] == "killed by SIGKILL"


def test_models_come_back_under_the_same_handle(client: RawClient) -> None:
    model = client.load("null")
    kill(client.host())
    answer = client.wait(client.start(model, "after"))
    assert answer.value["choices"][0]["text"] == "after"
    assert client.call("stat_object", handle=model)["state"] == "awake"


def test_a_host_that_starts_is_restarted(client: RawClient) -> None:
    with client.driver_goes_through("backoff", "starting", "backoff", "starting", "ready"):
        kill(client.host())
        client.await_driver("starting")
        kill(client.host())


def test_a_host_that_loads_ends_the_load(kernel: KernelProcess, client: RawClient) -> None:
    write_model(kernel.models / "slow", faults=["hang 60000 @load"])
    number = client.send("load_model", path="/models/slow", device=client.grants["null0"])
    client.until(lambda: bool(client.answers[number].progress))
    kill(client.host())
    assert isinstance(client.wait(number).error, PeerGone)
    client.await_driver("ready")
    client.quiet()
    assert client.names("/proc/models") == []
    assert client.infer(client.load("null"), "next")["choices"][0]["text"] == "next"


def test_a_stream_ends_with_what_was_delivered(client: RawClient) -> None:
    number = client.start(client.load("null"), "!hang @step 4; abcdefgh", "infer_stream")
    client.until(lambda: len(client.answers[number].chunks) == 3)
    kill(client.host())
    answer = client.wait(number)
    assert isinstance(answer.error, PeerGone)
    assert answer.error.tokens_done == 3
    assert answer.text == "abc"
    client.await_driver("ready")
    client.quiet()


def test_what_waits_runs_after_the_restart(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder, "[drivers.null0.config]\nslots = 1\n") as kernel, kernel.client() as client:
        model = client.load("null")
        stream = client.start(model, "!hang @step 2; ab", "infer_stream")
        client.first_chunk(stream)
        waiting = [client.start(model, f"waits {n}", call_priority=-n) for n in range(5)]
        client.quiet()
        kill(client.host())
        assert isinstance(client.wait(stream).error, PeerGone)
        for n, number in enumerate(waiting):
            assert client.wait(number).value["choices"][0]["text"] == f"waits {n}"
        assert client.driver()["fields"]["restarts"] == 1
        client.quiet()


def test_a_second_crash_while_models_are_reloaded_loses_no_waiting_request(folder: Path) -> None:
    write_model(folder / "home/models/null")
    crashed = folder / "crashed"
    crashed.touch()
    config = f'[drivers.null0.config]\nfaults = ["crash @load"]\nonce = "{crashed}"\nslots = 1\n'
    with running(folder, config) as kernel, kernel.client() as client:
        model = client.load("null")
        stream = client.start(model, "!hang @step 2; ab", "infer_stream")
        client.first_chunk(stream)
        waiting = client.start(model, "waits")
        client.quiet()
        crashed.unlink()
        kill(client.host())
        assert isinstance(client.wait(stream).error, PeerGone)
        assert client.wait(waiting).value["choices"][0]["text"] == "waits"
        assert client.driver()["fields"]["restarts"] == 2


def test_a_request_that_delivered_nothing_is_repeated_once(folder: Path) -> None:
    write_model(folder / "home/models/null")
    config = f'[drivers.null0.config]\nfaults = ["crash kill @submit"]\nonce = "{folder}/crashed"\n'
    with running(folder, config) as kernel, kernel.client() as client:
        answer = client.wait(client.start(client.load("null"), "again"))
        assert answer.value["choices"][0]["text"] == "again"
        assert "request.repeated" in answer.reasons
        assert client.driver()["fields"]["restarts"] == 1


def test_a_request_is_not_repeated_twice(client: RawClient) -> None:
    answer = client.wait(client.start(client.load("null"), "!crash kill; never"))
    assert isinstance(answer.error, PeerGone)
    assert answer.error.tokens_done == 0
    assert "request.repeated" in answer.reasons
    assert client.driver()["fields"]["restarts"] == 2
    client.await_driver("ready")
    client.quiet()


def test_a_request_that_was_cancelled_is_not_repeated(client: RawClient) -> None:
    number = client.start(client.load("null"), "!hang; never")
    client.quiet()
    client.cancel(number)
    client.quiet()
    kill(client.host())
    answer = client.wait(number)
    assert isinstance(answer.error, PeerGone)
    assert "request.repeated" not in answer.reasons
    client.await_driver("ready")


def test_a_deadline_frees_the_slot_even_if_the_host_dies_later(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder, "[drivers.null0.config]\nslots = 1\n") as kernel, kernel.client() as client:
        model = client.load("null")
        number = client.send_soon("infer", 0.05, model=model, input={"type": "text", "text": "!hang; x"})
        assert client.wait(number).error is not None
        kill(client.host())
        assert client.infer(model, "next")["choices"][0]["text"] == "next"


def test_a_conversation_is_lost_and_says_so(client: RawClient) -> None:
    model = client.load("null")
    context = client.call("open_context", model=model)["handle"]
    assert client.wait(client.start(model, "one", call_context=context)).value["choices"][0]["text"] == "one"
    with client.driver_goes_through("backoff", "ready"):
        kill(client.host())
    error = client.wait(client.start(model, "two", call_context=context)).error
    assert isinstance(error, BadState)
    assert error.state == "lost"
    fork = client.error("open_context", model=model, parent=context)
    assert isinstance(fork, BadState)
    client.call("close_handle", handle=context)
    again = client.call("open_context", model=model)["handle"]
    assert client.wait(client.start(model, "three", call_context=again)).value["choices"][0]["text"] == "three"


def test_an_open_file_says_that_its_driver_has_restarted(folder: Path) -> None:
    with running(folder, drivers="files") as kernel, kernel.client() as client:
        file = client.call("open_file", path="/home/note", mode="w")["handle"]
        client.call("write_file", file=file, offset=0, data=b"half")
        with client.driver_goes_through("backoff", "ready", name="files"):
            kill(client.host("files"))
        assert isinstance(client.error("write_file", file=file, offset=4, data=b"more"), PeerGone)
        assert isinstance(client.error("close_handle", handle=file), PeerGone)
        assert client.names("/home") == []


@pytest.mark.parametrize(("fault", "cause"), [("crash 41", "exit status 41"), ("crash kill", "killed by SIGKILL")])
def test_the_cause_of_an_end_is_kept(client: RawClient, fault: str, cause: str) -> None:
    assert isinstance(client.wait(client.start(client.load("null"), f"!{fault}; x")).error, PeerGone)
    assert cause in client.driver()["fields"]["cause"]
    client.await_driver("ready")


def test_an_exception_in_the_driver_ends_its_host_and_names_it(client: RawClient) -> None:
    error = client.wait(client.start(client.load("null"), "!fault; x")).error
    assert isinstance(error, PeerGone)
    assert "RuntimeError: the null device was told to fail" in str(error)
    client.await_driver("ready")


def test_crashes_leave_nothing(kernel: KernelProcess, client: RawClient) -> None:
    model = client.load("null")
    with kernel.client("footprint") as looking:
        footprint = Footprint(kernel, looking)
        context = client.call("open_context", model=model)
        answer = client.wait(client.start(model, "!crash; x"))
        assert isinstance(answer.error, PeerGone)
        client.call("close_handle", handle=context["handle"])
        client.await_driver("ready")
        assert client.infer(model, "x")["choices"][0]["text"] == "x"
        footprint.gone()

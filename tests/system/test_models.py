"""Models while requests run: swapped, put to sleep, woken, replaced, unloaded; no request is lost by it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmos.syscalls.errors import BadState, Busy, Exists, NotFound, TimedOut
from system.footprint import Footprint
from system.kernel_process import KernelProcess, eventually, kill, running
from system.model_folder import write_model, write_versions
from system.raw_client import RawClient

ENDLESS = {"ignore_eos": True, "max_tokens": 2000}
pytestmark = pytest.mark.usefixtures("footprint")


@pytest.fixture(scope="module", autouse=True)
def versions(shared_kernel: KernelProcess) -> None:
    write_versions(shared_kernel.models / "v", "one", "two", "three")


@pytest.fixture
def v(shared: RawClient) -> Iterator[int]:
    """/models/v@one, loaded for this test."""
    model = int(shared.call("load_model", path="/models/v@one", device=shared.grants["null0"])["handle"])
    yield model
    shared.wait(shared.send("unload_model", model=model, force=True))


def state(client: RawClient, model: int) -> str:
    return str(client.call("stat_object", handle=model)["state"])


def control(client: RawClient, model: int, action: str, **options: object) -> None:
    client.call("control_object", handle=model, action=action, options=options)


def weights(client: RawClient) -> int:
    """How many sets of weights the ledger knows."""
    return client.read("/sys/memory").count(b'"weights"')


# ---- swap


def test_a_swap_moves_new_requests_and_lets_running_ones_end(
    shared_kernel: KernelProcess, shared: RawClient, v: int
) -> None:
    old = shared.start(v, "!slow 2; old", "infer_stream", **ENDLESS)
    shared.first_chunk(old)
    control(shared, v, "swap", to="two")
    assert shared.infer(v, "new")["model_version"] == "two"
    assert weights(shared) == 2
    shared.cancel(old)
    answer = shared.wait(old).value
    assert answer["choices"][0]["reason"] == "cancelled"
    assert set(answer["choices"][0]["text"]) <= set("old")
    eventually(shared_kernel, lambda: weights(shared) == 1, lambda: shared.read("/sys/memory"))
    assert shared.call("stat_object", handle=v)["fields"]["version"] == "two"


def test_a_swap_to_what_does_not_exist_changes_nothing(shared: RawClient, v: int) -> None:
    error = shared.error("control_object", handle=v, action="swap", options={"to": "ten"})
    assert isinstance(error, NotFound)
    assert "one, two, three" in str(error)
    assert shared.infer(v, "x")["model_version"] == "one"


def test_a_swap_that_fails_to_load_keeps_the_old(shared_kernel: KernelProcess, shared: RawClient, v: int) -> None:
    write_model(shared_kernel.models / "v/versions/bad", version="bad", order=0, faults=["oom @load"])
    assert shared.error("control_object", handle=v, action="swap", options={"to": "bad"})
    assert shared.infer(v, "x")["model_version"] == "one"
    assert weights(shared) == 1


def test_a_swap_goes_on_when_nobody_waits_for_it(shared_kernel: KernelProcess, shared: RawClient, v: int) -> None:
    os.kill(shared.host(), signal.SIGSTOP)
    number = shared.send_soon("control_object", 0.1, handle=v, action="swap", options={"to": "three"})
    assert isinstance(shared.wait(number).error, TimedOut)
    os.kill(shared.host(), signal.SIGCONT)
    eventually(shared_kernel, lambda: shared.infer(v, "x")["model_version"] == "three", lambda: state(shared, v))
    eventually(shared_kernel, lambda: weights(shared) == 1, lambda: shared.read("/sys/memory"))


# ---- sleep and wake


def test_sleep_frees_the_device_and_the_next_request_wakes(shared: RawClient, v: int) -> None:
    free = shared.call("stat_object", handle=shared.grants["null0"])["fields"]["free"]
    control(shared, v, "sleep")
    assert state(shared, v) == "asleep"
    assert shared.call("stat_object", handle=shared.grants["null0"])["fields"]["free"] > free
    answer = shared.wait(shared.start(v, "awake"))
    assert answer.value["choices"][0]["text"] == "awake"
    assert "model.waking" in answer.reasons
    assert state(shared, v) == "awake"


def test_sleep_with_running_requests_is_refused(shared: RawClient, v: int) -> None:
    number = shared.start(v, "!slow 2; x", "infer_stream", **ENDLESS)
    shared.first_chunk(number)
    assert isinstance(shared.error("control_object", handle=v, action="sleep"), BadState)
    shared.cancel(number)
    assert shared.wait(number).error is None


def test_a_request_that_comes_while_a_model_goes_to_sleep_is_served(shared: RawClient, v: int) -> None:
    sleeping = shared.send("control_object", handle=v, action="sleep")
    numbers = [shared.start(v, f"request {n}") for n in range(5)]
    shared.wait(sleeping)
    assert [shared.wait(n).value["choices"][0]["text"] for n in numbers] == [f"request {n}" for n in range(5)]


def test_a_sleep_nobody_waits_for_is_a_sleep(shared_kernel: KernelProcess, shared: RawClient, v: int) -> None:
    os.kill(shared.host(), signal.SIGSTOP)
    assert isinstance(shared.wait(shared.send_soon("control_object", 0.1, handle=v, action="sleep")).error, TimedOut)
    os.kill(shared.host(), signal.SIGCONT)
    eventually(shared_kernel, lambda: state(shared, v) == "asleep", lambda: state(shared, v))
    assert shared.infer(v, "x")["choices"][0]["text"] == "x"


def test_conversations_outlive_sleep_and_are_lost_by_a_swap(shared: RawClient, v: int) -> None:
    context = shared.call("open_context", model=v)["handle"]
    control(shared, v, "sleep")
    assert shared.wait(shared.start(v, "x", call_context=context)).error is None
    control(shared, v, "swap", to="two")
    error = shared.wait(shared.start(v, "x", call_context=context)).error
    assert isinstance(error, BadState)
    assert error.state == "lost"


def test_many_callers_share_one_wake(shared: RawClient, v: int) -> None:
    control(shared, v, "sleep")
    wakes = [shared.send("control_object", handle=v, action="wake") for _ in range(5)]
    requests = [shared.start(v, "x") for _ in range(5)]
    for number in (*wakes, *requests):
        assert shared.wait(number).error is None


def test_a_host_that_dies_while_its_model_sleeps_brings_it_back(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder) as kernel, kernel.client() as client:
        model = client.load("null")
        control(client, model, "sleep")
        kill(client.host())
        assert client.wait(client.start(model, "back")).value["choices"][0]["text"] == "back"


def test_after_a_crash_what_slept_is_cold_and_so_is_what_finds_no_room(folder: Path) -> None:
    for name in ("one", "two"):
        write_model(folder / "home/models" / name, size=600)
    with running(folder, "[drivers.null0.config]\nmemory_bytes = 1000\n") as kernel, kernel.client() as client:
        slept, awake = client.load("one"), client.load("two")
        assert (state(client, slept), state(client, awake)) == ("asleep", "awake")
        with client.driver_goes_through("backoff", "starting", "ready"):
            kill(client.host())
        eventually(kernel, lambda: state(client, awake) == "awake", lambda: state(client, awake))
        assert state(client, slept) == "cold" and weights(client) == 1
        control(client, client.grants["null0"], "limit", bytes=500)
        with client.driver_goes_through("backoff", "starting", "ready"):
            kill(client.host())
        eventually(kernel, lambda: state(client, awake) == "cold", lambda: state(client, awake))
        for model, why in ((slept, "while it slept"), (awake, "600 B are needed on null0")):
            info = client.call("stat_object", handle=model)
            told = client.call("read_journal", system=client.system, about=info["id"])
            reasons = [reason for record in told for reason in record["reasons"] if reason["code"] == "model.cold"]
            assert info["health"] == "ok" and why in info["reasons"][0]["text"] and info["reasons"][0] in reasons
        assert weights(client) == 0
        control(client, client.grants["null0"], "limit", bytes=0)
        for model, text in ((slept, "one"), (awake, "two"), (slept, "again")):
            assert client.infer(model, text)["choices"][0]["text"] == text


# ---- conversations


def test_a_conversation_goes_on_and_can_be_forked(shared: RawClient, v: int) -> None:
    context = shared.call("open_context", model=v)["handle"]
    first = shared.wait(shared.start(v, "one", call_context=context)).value["usage"]
    second = shared.wait(shared.start(v, "two", call_context=context)).value["usage"]
    assert second["cached_tokens"] == first["prompt_tokens"] + first["new_tokens"]
    fork = shared.call("open_context", model=v, parent=context)
    assert fork["tokens"] == second["prompt_tokens"] + second["new_tokens"]
    for handle in (context, fork["handle"]):
        shared.call("close_handle", handle=handle)


def test_two_requests_cannot_extend_one_conversation_at_once(shared: RawClient, v: int) -> None:
    context = shared.call("open_context", model=v)["handle"]
    first = shared.start(v, "!slow 20; abcdefghij", "infer_stream", call_context=context)
    shared.first_chunk(first)
    error = shared.wait(shared.start(v, "x", call_context=context)).error
    assert isinstance(error, BadState)
    assert error.state == "busy"
    assert shared.wait(first).error is None
    shared.call("close_handle", handle=context)


def test_a_conversation_of_another_model_is_refused(shared: RawClient, v: int) -> None:
    other = shared.load("null")
    context = shared.call("open_context", model=other)["handle"]
    assert isinstance(shared.wait(shared.start(v, "x", call_context=context)).error, BadState)
    shared.call("close_handle", handle=context)
    shared.call("unload_model", model=other)


# ---- load and unload


def test_loading_what_is_loaded_shares_it(shared: RawClient, v: int) -> None:
    numbers = [shared.send("load_model", path="/models/null", device=shared.grants["null0"]) for _ in range(5)]
    ids = {shared.wait(number).value["id"] for number in numbers}
    assert len(ids) == 1
    shared.call("unload_model", model=shared.load("null"))


def test_a_name_belongs_to_one_model(shared: RawClient, v: int) -> None:
    error = shared.error("load_model", path="/models/v@two", device=shared.grants["null0"])
    assert isinstance(error, Exists)
    assert "replace=True" in str(error)
    other = shared.call(
        "load_model", path="/models/v@two", device=shared.grants["null0"], options={"name": "other"}
    )["handle"]
    assert shared.infer(other, "x")["model_version"] == "two"
    shared.call("unload_model", model=other)


def test_replace_takes_the_name_over_when_requests_have_ended(
    shared_kernel: KernelProcess, shared: RawClient, v: int
) -> None:
    old = shared.start(v, "!slow 2; x", "infer_stream", **ENDLESS)
    shared.first_chunk(old)
    options = {"replace": True}
    new = shared.call("load_model", path="/models/v@two", device=shared.grants["null0"], options=options)["handle"]
    assert shared.infer(new, "x")["model_version"] == "two"
    assert len(shared.names("/proc/models")) == 2
    shared.cancel(old)
    assert shared.wait(old).error is None
    eventually(shared_kernel, lambda: len(shared.names("/proc/models")) == 1, lambda: shared.names("/proc/models"))
    shared.call("unload_model", model=new)


def test_unload_of_a_busy_model_is_refused_and_forced(shared: RawClient) -> None:
    model = shared.load("null")
    number = shared.start(model, "!slow 2; x", "infer_stream", **ENDLESS)
    shared.first_chunk(number)
    assert isinstance(shared.error("unload_model", model=model), Busy)
    shared.call("unload_model", model=model, force=True)
    assert shared.wait(number).value["choices"][0]["reason"] == "cancelled"
    assert shared.wait(shared.start(model, "x")).error is not None
    assert weights(shared) == 0


def test_progress_of_a_load_is_shown(shared: RawClient) -> None:
    number = shared.send("load_model", path="/models/null", device=shared.grants["null0"])
    answer = shared.wait(number)
    assert [p["stage"] for p in answer.progress][-1] == "weights"
    assert answer.progress[-1]["done"] == answer.progress[-1]["total"]
    shared.call("unload_model", model=answer.value["handle"])


def test_idle_models_sleep_after_their_time(shared: RawClient, footprint: Footprint) -> None:
    model = shared.load("null", keep_alive=0)
    with shared.watching("model") as events:
        while state(shared, model) != "asleep":
            seen = len(events.chunks)
            while len(events.chunks) == seen:
                shared.receive()
    shared.call("unload_model", model=model)

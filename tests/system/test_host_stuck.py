"""A host that does not get on: stopped, spinning, late. Progress of the work loop is what counts as life."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmos.syscalls.errors import PeerGone, TimedOut
from system.kernel_process import KernelProcess, running
from system.model_folder import write_model
from system.raw_client import RawClient

QUICK = "[drivers.null0.config]\nstep_limit_s = 0.5\nload_limit_s = 0.5\nslots = 1\n"
"""A silent step counts as stuck after half a second instead of three."""


@pytest.fixture
def quick(folder: Path) -> Iterator[KernelProcess]:
    """A kernel whose null device is soon found stuck and runs one request at a time."""
    write_model(folder / "home/models/null")
    with running(folder, QUICK) as kernel:
        yield kernel


@pytest.fixture
def impatient(quick: KernelProcess) -> Iterator[RawClient]:
    with quick.client() as client:
        client.await_driver("ready")
        yield client


def test_a_stopped_host_is_suspected_killed_and_replaced(impatient: RawClient) -> None:
    before = impatient.host()
    with impatient.driver_goes_through("suspect", "backoff", "starting", "ready"):
        os.kill(before, signal.SIGSTOP)
    driver = impatient.driver()
    assert driver["fields"]["pid"] != before
    assert "no sign of life from its work loop" in driver["fields"]["cause"]
    assert impatient.infer(impatient.load("null"), "lives")["choices"][0]["text"] == "lives"


def test_a_host_that_goes_on_is_no_longer_suspected(impatient: RawClient) -> None:
    before = impatient.host()
    with impatient.driver_goes_through("suspect", "ready"):
        os.kill(before, signal.SIGSTOP)
        impatient.await_driver("suspect")
        os.kill(before, signal.SIGCONT)
    assert impatient.host() == before


@pytest.mark.parametrize("how", ["hang busy", "hang"])
def test_a_work_loop_that_hangs_is_ended_although_its_transport_lives(impatient: RawClient, how: str) -> None:
    model = impatient.load("null")
    stuck = impatient.start(model, f"!{how} @step 2; ab", "infer_stream")
    waiting = impatient.start(model, "waits")
    impatient.first_chunk(stuck)
    with impatient.driver_goes_through("suspect", "backoff", "ready"):
        impatient.quiet()
    error = impatient.wait(stuck).error
    assert isinstance(error, PeerGone)
    assert error.tokens_done == 1
    assert impatient.wait(waiting).value["choices"][0]["text"] == "waits"


def test_a_load_that_hangs_is_ended(quick: KernelProcess, impatient: RawClient) -> None:
    write_model(quick.models / "stuck", faults=["hang busy @load"])
    with impatient.driver_goes_through("suspect", "backoff", "ready"):
        number = impatient.send("load_model", path="/models/stuck", device=impatient.grants["null0"])
    assert isinstance(impatient.wait(number).error, PeerGone)


def test_a_start_that_hangs_is_ended(folder: Path) -> None:
    marker = folder / "hung"
    config = f'[drivers.null0]\nstart_s = 20\n[drivers.null0.config]\nfaults = ["hang busy"]\nonce = "{marker}"\n'
    with running(folder, config + "start_limit_s = 0.5\n", drivers="null0") as kernel, kernel.client() as client:
        client.await_driver("backoff")
        client.await_driver("ready")
        assert "busy with start" in client.driver()["fields"]["cause"]


def test_a_slow_step_that_was_declared_is_no_hang(impatient: RawClient) -> None:
    before = impatient.host()
    answer = impatient.infer(impatient.load("null"), "!slow 1200; ab", max_tokens=1)
    assert answer["choices"][0]["text"] == "a"
    assert impatient.host() == before
    assert impatient.driver()["fields"]["restarts"] == 0


def test_an_answer_after_the_deadline_is_dropped_and_its_slot_freed(impatient: RawClient) -> None:
    model = impatient.load("null")
    late = impatient.send_soon("infer", 0.3, model=model, input={"type": "text", "text": "!late 1000; late"})
    after = impatient.start(model, "after")
    error = impatient.wait(late).error
    assert isinstance(error, TimedOut)
    assert impatient.answers[after].kind is None
    assert impatient.wait(after).value["choices"][0]["text"] == "after"
    impatient.quiet()


def test_a_deadline_in_the_queue_runs_out_too(impatient: RawClient) -> None:
    model = impatient.load("null")
    running_one = impatient.start(model, "!late 1500; x", "infer")
    waiting = impatient.send_soon("infer", 0.2, model=model, input={"type": "text", "text": "never"})
    error = impatient.wait(waiting).error
    assert isinstance(error, TimedOut)
    assert impatient.answers[running_one].kind is None
    impatient.cancel(running_one)
    assert impatient.wait(running_one).value["choices"][0]["reason"] == "cancelled"


def test_a_deadline_in_the_past_is_refused_before_anything_runs(impatient: RawClient) -> None:
    model = impatient.load("null")
    error = impatient.wait(impatient.send_soon("infer", -1, model=model, input={"type": "text", "text": "x"})).error
    assert isinstance(error, TimedOut)
    assert impatient.call("stat_object", handle=model)["fields"]["requests"] == 0

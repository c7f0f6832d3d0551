"""A driver that crashes again and again is declared failed: calls say so at once, `reset` tries again."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.syscalls.errors import BadState, DriverFailed, PeerGone
from system.kernel_process import running
from system.model_folder import write_model
from system.raw_client import RawClient

FEW = "[drivers.null0]\nrestarts = 1\n[drivers.null0.config]\nslots = 1\n"


def reset(client: RawClient) -> None:
    client.call("control_object", handle=client.driver()["handle"], action="reset")
    client.await_driver("ready")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_crash_loop_ends_in_failed_and_reset_works(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder, FEW) as kernel, kernel.client() as client:
        model = client.load("null")
        stream = client.start(model, "!crash kill @step 2; ab", "infer_stream")
        assert isinstance(client.wait(stream).error, PeerGone)
        client.await_driver("ready")
        again = client.start(model, "!crash 7; cd", "infer_stream")
        waiting = client.start(model, "waits")
        assert isinstance(client.wait(again).error, PeerGone)
        assert isinstance(client.wait(waiting).error, DriverFailed)
        client.await_driver("failed")
        later = client.wait(client.start(model, "later")).error
        assert isinstance(later, DriverFailed)
        assert "exit status 7" in later.cause
        refused = client.error("load_model", path="/models/null", device=client.grants["null0"], options={"name": "b"})
        assert isinstance(refused, DriverFailed)
        assert isinstance(client.error("alloc_gpu", device=client.grants["null0"], bytes=1), DriverFailed)
        reset(client)
        assert client.infer(model, "works")["choices"][0]["text"] == "works"


def test_a_driver_that_never_starts_fails(folder: Path) -> None:
    config = '[drivers.null0]\nrestarts = 1\n[drivers.null0.config]\nfaults = ["crash 5"]\n'
    with running(folder, config, drivers="null0") as kernel, kernel.client() as client:
        lease = client.send("alloc_gpu", device=client.grants["null0"], bytes=1)
        error = client.wait(lease).error
        assert isinstance(error, DriverFailed)
        assert error.restarts == 1
        assert "exit status 5" in error.cause
        assert isinstance(client.error("alloc_gpu", device=client.grants["null0"], bytes=1), DriverFailed)


def test_a_driver_with_a_bad_setting_says_which(folder: Path) -> None:
    config = "[drivers.null0]\nrestarts = 0\n[drivers.null0.config]\nslotz = 1\n"
    with running(folder, config, drivers="null0") as kernel, kernel.client() as client:
        error = client.error("alloc_gpu", device=client.grants["null0"], bytes=1)
        assert isinstance(error, DriverFailed)
        assert "slotz" in error.cause


def test_reset_is_for_failed_drivers(folder: Path) -> None:
    with running(folder, drivers="null0") as kernel, kernel.client() as client:
        client.await_driver("ready")
        error = client.error("control_object", handle=client.driver()["handle"], action="reset")
        assert isinstance(error, BadState)
        assert error.state == "ready"


def test_a_stopped_driver_is_told_apart_and_started_again(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder) as kernel, kernel.client() as client:
        model = client.load("null")
        handle = client.driver()["handle"]
        begun = client.start(model, "!slow 300; abcdefghijklmnopqrst", "infer_stream")
        client.first_chunk(begun)  # what has not begun yet is told that the driver is stopping
        client.call("control_object", handle=handle, action="stop")
        client.await_driver("stopped")
        assert isinstance(client.wait(begun).error, PeerGone)
        error = client.wait(client.start(model, "x")).error
        assert isinstance(error, BadState)
        assert error.state == "stopped"
        assert client.driver()["fields"]["restarts"] == 0
        client.call("control_object", handle=handle, action="start")
        client.await_driver("ready")
        assert client.infer(model, "back")["choices"][0]["text"] == "back"


def test_stop_with_drain_lets_requests_end(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder) as kernel, kernel.client() as client:
        model = client.load("null")
        number = client.start(model, "!slow 20; abcdefghij", "infer_stream")
        client.first_chunk(number)
        client.call("control_object", handle=client.driver()["handle"], action="stop", options={"drain_s": 3600.0})
        assert client.wait(number).value["choices"][0]["text"] == "abcdefghij"
        client.await_driver("stopped")


def test_restart_on_request_counts_as_no_crash_and_keeps_models(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder, FEW) as kernel, kernel.client() as client:
        model = client.load("null")
        for _ in range(3):
            before = client.host()
            with client.driver_goes_through("starting", "ready"):
                client.call("control_object", handle=client.driver()["handle"], action="restart")
            assert client.host() != before
            assert client.infer(model, "x")["choices"][0]["text"] == "x"

"""What a host may send that it should not: it is ended, its clients get one answer each, the next host works."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from llmos.syscalls.errors import PeerGone
from system.kernel_process import DidNotStart, KernelProcess, running
from system.raw_client import RawClient


@pytest.mark.parametrize("kind", ["bytes", "half"])
def test_an_answer_that_is_none_ends_the_host(client: RawClient, kind: str) -> None:
    answer = client.wait(client.start(client.load("null"), f"!garbage {kind}; x"))
    assert isinstance(answer.error, PeerGone)
    assert "request.repeated" in answer.reasons
    assert "it sent something that is no message of a driver" in client.driver()["fields"]["cause"]
    client.await_driver("ready")
    client.quiet()


@pytest.mark.parametrize("kind", ["unknown", "twice"])
def test_an_answer_nobody_waits_for_ends_the_host(client: RawClient, kind: str) -> None:
    model = client.load("null")
    with client.driver_goes_through("backoff", "starting", "ready"):
        answer = client.wait(client.start(model, f"!garbage {kind}; once"))
    if kind == "twice":
        assert answer.value["choices"][0]["text"] == "once"
    assert "which is not in flight" in client.driver()["fields"]["cause"]
    client.quiet()
    assert client.infer(model, "next")["choices"][0]["text"] == "next"


def test_garbage_in_the_middle_of_a_stream_tells_what_was_delivered(client: RawClient) -> None:
    answer = client.wait(client.start(client.load("null"), "!garbage half; abc", "infer_stream"))
    assert isinstance(answer.error, PeerGone)
    assert answer.error.tokens_done == len(answer.text) + 1
    client.await_driver("ready")


def test_output_without_end_costs_nothing(client: RawClient) -> None:
    answer = client.infer(client.load("null"), "!noisy 3000000; x")
    assert answer["choices"][0]["text"] == "x"
    assert client.driver()["fields"]["restarts"] == 0


def test_nobody_else_finds_a_way_to_speak_for_a_host(shared_kernel: KernelProcess, shared: RawClient) -> None:
    """The kernel and its hosts have socket pairs without a name, which cannot be opened, only inherited."""
    assert [path.name for path in shared_kernel.runtime.iterdir() if path.is_socket()] == ["kernel.sock"]
    for driver in ("null0", "models"):
        [end] = sockets(shared.host(driver))
        with pytest.raises(OSError, match="No such device") as refused:
            end.open("rb")
        assert refused.value.errno == errno.ENXIO


def sockets(pid: int) -> list[Path]:
    """The open sockets of a process."""
    return [end for end in Path(f"/proc/{pid}/fd").iterdir() if str(end.readlink()).startswith("socket:")]


def test_a_program_does_not_inherit_the_way_to_the_hosts(client: RawClient) -> None:
    task = client.call("spawn_program", system=client.system, argv=["sleep", "600"])
    assert sockets(client.call("stat_object", handle=task["handle"])["fields"]["pid"]) == []
    client.call("close_handle", handle=task["handle"])


def test_a_driver_that_nobody_announces_is_named_and_nothing_starts(folder: Path) -> None:
    refused = pytest.raises(DidNotStart, match="no package announces a driver 'nothing'")
    with refused, running(folder, drivers="null0,nothing"):
        pass

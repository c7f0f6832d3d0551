"""What a host may send that it should not: it is ended, its clients get one answer each, the next host works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zmq
from llmos.syscalls.errors import PeerGone
from llmos.syscalls.wire import LIMITS, MessageKind, pack
from system import zmtp
from system.footprint import Footprint
from system.kernel_process import KernelProcess, running
from system.model_folder import write_model
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


def stranger(kernel: KernelProcess) -> zmq.SyncSocket:
    """A connection to the socket of the hosts from a process that is none."""
    socket: zmq.SyncSocket = zmq.Context().socket(zmq.DEALER)
    socket.linger = 1000
    socket.connect(f"ipc://{kernel.runtime}/hosts.sock")
    return socket


def journal(client: RawClient, after: int) -> list[str]:
    return [record["text"] for record in client.call("read_journal", system=client.system, after=after)]


@pytest.mark.parametrize(
    "frames",
    [
        pack(MessageKind.BEAT, 0, "", {"seq": 0, "steps": 0}),
        pack(MessageKind.EVENT, 0, "ready", {"devices": [{"name": "null0", "kind": "x", "memory_bytes": 1 << 60}]}),
        pack(MessageKind.EVENT, 0, "fault", {"text": "null0 is broken", "sticky": True}),
        pack(MessageKind.END, 1, "", {"value": None}),
        [b""],
        [b"\xc1", b"\xc1"],
        [bytes(LIMITS.message_bytes)],
    ],
)
def test_nobody_else_speaks_for_a_host(
    shared_kernel: KernelProcess, shared: RawClient, footprint: Footprint, frames: list[bytes]
) -> None:
    before = shared.driver()
    last = shared.call("read_journal", system=shared.system, after=-1, limit=1)[-1]["seq"]
    socket = stranger(shared_kernel)
    socket.send_multipart(frames)
    socket.context.destroy()
    while not any(str(os.getpid()) in text for text in journal(shared, last)):
        shared.quiet()
    after = shared.driver()
    assert after["state"] == "ready"
    assert after["fields"]["pid"] == before["fields"]["pid"]
    assert shared.infer(shared.load("null"), "works")["choices"][0]["text"] == "works"
    shared.call("unload_model", model=shared.load("null"))


def test_a_host_s_routing_id_does_not_make_a_host(shared_kernel: KernelProcess, footprint: Footprint) -> None:
    path = shared_kernel.runtime / "hosts.sock"
    for number in range(20):
        with zmtp.greeted(path, bytes([0, 0, 0, 0, number])) as raw:
            raw.sendall(zmtp.message(pack(MessageKind.EVENT, 0, "fault", {"text": "spoofed"})))


def test_a_host_that_is_refused_says_why(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder, drivers="null0,nothing") as kernel, kernel.client() as client:
        records = client.call("read_journal", system=client.system, after=-1, about="nothing")
        assert "no package announces a driver 'nothing'" in records[0]["text"]

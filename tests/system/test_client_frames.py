"""What a client may send that is no call: it is answered with an error or dropped, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
from llmos.syscalls.errors import BadArgument, BadCall, Denied, LlmosError, TooLarge
from llmos.syscalls.wire import LIMITS, MessageKind, pack
from system import zmtp
from system.footprint import Footprint
from system.kernel_process import KernelProcess
from system.puppet import puppet
from system.raw_client import RawClient

OWN = b"\0same"
"""A routing id as the library makes them: no program can choose it, but who writes ZMTP by hand can."""
HEADER, BODY = pack(MessageKind.CALL, 5, "stat_object", {"handle": 1})


@pytest.fixture(autouse=True)
def nothing_kept(footprint: Footprint) -> None:
    """Whatever a test sends, the kernel keeps nothing of it."""


# ---- messages that are not calls


def test_a_call_before_hello_is_refused(shared_kernel: KernelProcess) -> None:
    with shared_kernel.connection() as client:
        error = client.error("stat_object", handle=1)
        assert isinstance(error, Denied)
        assert error.missing == "session"


@pytest.mark.parametrize("kind", [MessageKind.CANCEL, MessageKind.CREDIT])
def test_cancel_and_credit_before_hello_are_refused(shared_kernel: KernelProcess, kind: MessageKind) -> None:
    with shared_kernel.connection() as client:
        client.send_frames(*pack(kind, 0, "", {"credit": 1}))
        assert isinstance(client.stray(), Denied)


@pytest.mark.parametrize("kind", [k for k in MessageKind if k not in ("call", "cancel", "credit")])
def test_what_only_the_kernel_says_is_refused(shared: RawClient, kind: MessageKind) -> None:
    shared.send_frames(*pack(kind, 0))
    assert isinstance(shared.stray(), BadCall)


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([b""], BadCall),
        ([HEADER], BadCall),
        ([HEADER, BODY, b"third"], BadCall),
        ([b"", b""], BadCall),
        ([b"\xc1", BODY], BadCall),
        ([bytes(1025), BODY], BadCall),
        ([msgpack.packb([99, "call", 0, "stat_object"]), BODY], BadCall),
        ([msgpack.packb([1, "shout", 0, "stat_object"]), BODY], BadCall),
        ([msgpack.packb([1, "call", -1, "stat_object"]), BODY], BadCall),
        ([msgpack.packb([1, "call", 0, "stat_object"]), BODY], BadCall),
        ([msgpack.packb([1, "call", 0, 7]), BODY], BadCall),
        ([msgpack.packb([1, "call", 0, "stat_objekt"]), BODY], BadCall),
        ([msgpack.packb([1, "call", 0, "stat_object"]), b"\xc1"], BadCall),
        ([msgpack.packb([1, "call", 0, "stat_object"]), BODY[:-1]], BadCall),
        ([msgpack.packb([1, "call", 0, "stat_object"]), msgpack.packb([1, 2])], BadCall),
        ([msgpack.packb([1, "call", 0, "stat_object"]), b"\x81\xa6handle" + b"\x91" * 100 + b"\xc0"], TooLarge),
        ([msgpack.packb([1, "credit", 0, ""]), msgpack.packb({"credit": 0})], BadArgument),
        ([msgpack.packb([1, "credit", 0, ""]), msgpack.packb({"credit": True})], BadArgument),
        ([msgpack.packb([1, "credit", 0, ""]), msgpack.packb({})], BadArgument),
    ],
)
def test_a_message_that_is_none_gets_an_error(
    shared: RawClient, frames: list[bytes], error: type[LlmosError]
) -> None:
    shared.send_frames(*frames)
    assert isinstance(shared.stray(), error)
    shared.quiet()


def test_a_request_id_in_flight_cannot_be_used_again(shared: RawClient) -> None:
    with shared.watching("task") as watch:
        shared.send_frames(*pack(MessageKind.CALL, watch.number, "stat_object", {"handle": shared.system}))
        shared.until(lambda: watch.kind is not None)
        assert isinstance(watch.error, BadCall)
        watch.kind = None


def test_cancel_and_credit_for_requests_that_are_over_are_ignored(shared: RawClient) -> None:
    shared.cancel(1)
    shared.credit(1, 5)
    shared.cancel(4711)
    shared.quiet()
    assert shared.strays == []


# ---- size


def test_a_body_over_the_limit_is_too_large(shared: RawClient) -> None:
    number = shared.expect("stat_object")
    shared.send_frames(pack(MessageKind.CALL, number, "stat_object")[0], bytes(LIMITS.message_bytes + 1))
    error = shared.wait(number).error
    assert isinstance(error, TooLarge)
    assert error.limit == LIMITS.message_bytes
    assert error.got == LIMITS.message_bytes + 1


def test_a_frame_that_no_message_can_have_ends_the_connection(shared_kernel: KernelProcess, shared: RawClient) -> None:
    raw = zmtp.greeted(shared_kernel.socket)
    raw.sendall(b"\x02" + (LIMITS.message_bytes + 4096).to_bytes(8, "big"))
    assert raw.recv(1) == b""
    raw.close()
    shared.quiet()


def test_the_largest_message_passes(shared: RawClient) -> None:
    room = LIMITS.message_bytes - len(msgpack.packb({"handle": 1, "x": b""})) - 10
    number = shared.send("stat_object", handle=1, x=bytes(room))
    assert isinstance(shared.wait(number).error, BadArgument)


# ---- connections


def speaks(*parts: bytes) -> Callable[[Path], None]:
    """A peer that says this and goes away."""

    def speak(path: Path) -> None:
        with zmtp.connected(path) as raw:
            for part in parts:
                raw.sendall(part)

    return speak


def greets_and(*parts: bytes) -> Callable[[Path], None]:
    def speak(path: Path) -> None:
        with zmtp.greeted(path) as raw:
            for part in parts:
                raw.sendall(part)

    return speak


WHOLE = zmtp.message([HEADER, BODY])
BROKEN = {
    "nothing": speaks(),
    "half a greeting": speaks(zmtp.GREETING[:20]),
    "no greeting": speaks(b"GET / HTTP/1.1\r\n\r\n" * 10),
    "noise": speaks(bytes(range(256)) * 16),
    "a greeting alone": speaks(zmtp.GREETING),
    "half a handshake": speaks(zmtp.GREETING, zmtp.ready()[:9]),
    "a broken handshake": speaks(zmtp.GREETING, b"\x04\x06\x05WRONG"),
    "half a frame": greets_and(WHOLE[:-3]),
    "half a message": greets_and(zmtp.frame(HEADER, more=True)),
    "a length without end": greets_and(b"\x02" + b"\xff" * 8),
    "a whole message and half of one": greets_and(WHOLE, WHOLE[:7]),
    "no session": greets_and(WHOLE),
}


@pytest.mark.parametrize("peer", BROKEN.values(), ids=BROKEN)
def test_a_peer_that_breaks_off_is_forgotten(
    shared_kernel: KernelProcess, shared: RawClient, peer: Callable[[Path], None]
) -> None:
    peer(shared_kernel.socket)
    shared.quiet()


def test_half_a_frame_holds_up_nobody(shared_kernel: KernelProcess, shared: RawClient) -> None:
    with zmtp.greeted(shared_kernel.socket) as raw:
        raw.sendall(WHOLE[:-3])
        for _ in range(10):
            shared.quiet()
        raw.sendall(WHOLE[-3:])
        assert b"Denied" in raw.recv(4096)


def test_a_chosen_routing_id_is_refused(shared_kernel: KernelProcess) -> None:
    with shared_kernel.connection(b"mine") as client:
        client.send("hello", protocol=1, program="test")
        error = client.stray()
        assert isinstance(error, BadCall)
        assert "routing id" in str(error)


def test_a_routing_id_in_use_gets_nothing(shared_kernel: KernelProcess, shared: RawClient) -> None:
    with zmtp.greeted(shared_kernel.socket, OWN) as first:
        session = zmtp.call(first, "hello", protocol=1, program="first")
        with zmtp.connected(shared_kernel.socket) as second:
            second.sendall(zmtp.GREETING + zmtp.ready(OWN))
            second.sendall(zmtp.message(pack(MessageKind.CALL, 1, "stat_object", {"handle": session["handle"]})))
            shared.quiet()
            assert zmtp.call(first, "stat_object", handle=session["handle"])["name"] == "first"
        zmtp.call(first, "close_handle", handle=session["handle"])


def test_a_routing_id_of_another_process_gives_no_session(shared_kernel: KernelProcess, shared: RawClient) -> None:
    with puppet(shared_kernel.socket) as victim, puppet(shared_kernel.socket) as thief:
        session = victim.do("speak_as", OWN, "hello", protocol=1, program="victim")
        victim.do("hang_up")
        for _ in range(5):
            shared.quiet()  # the kernel's end of the connection goes in turns of its loop
        with pytest.raises(Denied):
            thief.do("speak_as", OWN, "stat_object", handle=session["handle"])
        assert victim.do("speak_as", b"", "hello", protocol=1, program="victim", resume=session["token"])

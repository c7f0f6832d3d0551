"""Any bytes at the clients' socket: the kernel answers an error or drops them; everybody else goes on."""

from __future__ import annotations

import contextlib

import llmos.syscalls.calls  # noqa: F401 - fills the call table
import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llmos.syscalls.errors import from_wire
from llmos.syscalls.spec import SYSCALLS
from llmos.syscalls.wire import PROTOCOL, TERMINAL, MessageKind, pack
from strategies import MAPS, PLAIN
from system import zmtp
from system.kernel_process import KernelProcess
from system.raw_client import RawClient

SHARED = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

LAST = 2**62
"""The request that tells that all before it were handled."""
NAMES = st.sampled_from([*SYSCALLS, ""]) | st.text(max_size=20)
KINDS = st.sampled_from([kind.value for kind in MessageKind]) | st.text(max_size=5)
NUMBERS = st.integers(0, 5) | st.integers(-(2**63), 2**64 - 1)
HEADERS = st.tuples(st.just(PROTOCOL) | NUMBERS, KINDS, NUMBERS, NAMES).map(list)
FRAMES = st.binary(max_size=64) | PLAIN.map(msgpack.packb)


@st.composite
def spoiled(draw: st.DrawFn) -> list[bytes]:
    """A valid call with some of its bytes changed, cut or repeated."""
    frames = pack(MessageKind.CALL, draw(st.integers(0, 3)), draw(st.sampled_from(list(SYSCALLS))), draw(MAPS))
    place = draw(st.integers(0, 1))
    data = bytearray(frames[place])
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    frames[place] = bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)
    return draw(st.sampled_from([frames, frames[:1], [*frames, b"more"], frames * 2]))


WHOLE = st.builds(lambda header, body: [msgpack.packb(header), msgpack.packb(body)], HEADERS, MAPS | PLAIN)
MESSAGES = st.lists(FRAMES, min_size=1, max_size=4) | WHOLE | spoiled()


@SHARED
@given(messages=st.lists(MESSAGES, min_size=1, max_size=5))
def test_any_message_is_answered_or_dropped(
    kernel: KernelProcess, witness: RawClient, messages: list[list[bytes]]
) -> None:
    with kernel.connection() as client:
        for frames in messages:
            client.send_frames(*frames)
        client.send_frames(*pack(MessageKind.CALL, LAST, "stat_object", {"handle": 1}))
        while (answer := client.receive_raw()).request != LAST:
            if answer.kind is MessageKind.ERROR:
                assert str(from_wire(answer.body))
        assert answer.kind in TERMINAL
    witness.quiet()


@SHARED
@given(parts=st.lists(st.binary(max_size=200), max_size=4), greeted=st.booleans())
def test_any_bytes_on_a_connection_harm_nobody(
    kernel: KernelProcess, witness: RawClient, parts: list[bytes], greeted: bool
) -> None:
    connect = zmtp.greeted if greeted else zmtp.connected
    with connect(kernel.socket) as raw, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for part in parts:
            raw.sendall(part)
    witness.quiet()


@SHARED
@given(frames=MESSAGES, cut=st.integers(0, 400))
def test_a_message_cut_anywhere_harms_nobody(
    kernel: KernelProcess, witness: RawClient, frames: list[bytes], cut: int
) -> None:
    with zmtp.greeted(kernel.socket) as raw:
        raw.sendall(zmtp.message(frames)[:cut])
    witness.quiet()

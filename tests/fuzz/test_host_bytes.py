"""Any bytes and any messages from a host: events, answers or garbage, and nothing else happens to the kernel."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import msgpack
from framed import Framed
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.kernel.channel import Channel
from llmos.kernel.link import Garbage, Link
from llmos.kernel.pending import Runner
from llmos.syscalls.driver import HOST_CALLS, HostStats, HostSubmit, Work
from llmos.syscalls.types import Text, Value
from llmos.syscalls.wire import MessageKind, pack
from strategies import MAPS, PLAIN

EVENTS = ("ready", "beat", "metric", "capacity", "spent", "memory", "fault")
SPOKEN = st.builds(
    pack, st.sampled_from(MessageKind), st.integers(0, 10), st.sampled_from([*EVENTS, *HOST_CALLS]), MAPS
)
NOISE = st.lists(st.binary(max_size=64) | PLAIN.map(msgpack.packb), min_size=2, max_size=2)


class Deaf:
    """A watcher; the test calls back itself."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None: ...
    def watch_room(self, fd: int, wanted: bool) -> None: ...
    def unwatch(self, fd: int) -> None: ...


class Heard:
    """A channel and a link with two calls in flight, and what came of the messages."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.faults: list[str] = []
        self.ended = 0
        self.channel = Channel(Deaf(), self._message, self.faults.append, self._end)
        self.link = Link("null0", Runner(lambda: 0), self.channel.send)
        self.link.call(HostStats())
        self.link.stream(HostSubmit(work=Work(id="r", model="m", input=Text(text="x"))), lambda _chunk: None)
        self.host = Framed(self.channel.theirs)

    def _message(self, frames: Sequence[bytes]) -> None:
        self.events.append(self.link.receive(frames))

    def _end(self) -> None:
        self.ended += 1

    def hear(self) -> None:
        self.host.socket.shutdown(socket.SHUT_WR)
        while not (self.ended or self.faults):
            self.channel.drain()
        self.channel.close()


@settings(max_examples=200)
@given(st.lists(SPOKEN | NOISE, max_size=5))
def test_messages_of_any_kind_are_taken_or_refused(messages: list[list[bytes]]) -> None:
    heard = Heard()
    for frames in messages:
        heard.host.send(frames)
    heard.hear()
    assert len(heard.events) == len(messages) and heard.ended == 1 and not heard.faults
    assert all(event is None or isinstance(event, Garbage | Value) for event in heard.events)


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_bytes_of_any_kind_are_messages_or_a_fault(pieces: list[bytes]) -> None:
    heard = Heard()
    for piece in pieces:
        heard.host.socket.sendall(piece)
    heard.hear()
    assert heard.ended + len(heard.faults) == 1

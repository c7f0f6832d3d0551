"""The kernel's end of a host's socket pair, with the other end in the test's hands."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from framed import Framed
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import Loop

from llmos.kernel import channel as module
from llmos.kernel.channel import Channel


class Ends:
    """A channel, what it has said, and the host's end of it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.messages: list[list[bytes]] = []
        self.faults: list[str] = []
        self.ended = 0
        self.answer: Callable[[], None] = lambda: None
        self.channel = Channel(self.loop, self._message, self.faults.append, self._end)
        self.host = Framed(self.channel.theirs)

    def _message(self, frames: Sequence[bytes]) -> None:
        self.messages.append(list(frames))
        self.answer()

    def _end(self) -> None:
        self.ended += 1

    def close(self) -> None:
        self.channel.close()
        self.host.close()
        assert self.loop.watched == 0
        self.loop.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


BODY = b"x" * 10_000


def flood(ends: Ends, count: int) -> list[list[bytes]]:
    messages = [[b"%d" % number, BODY] for number in range(count)]
    for message in messages:
        ends.channel.send(message)
    return messages


def test_messages_pass_both_ways(ends: Ends) -> None:
    ends.host.send([b"h", b"b"])
    ends.host.send([b"", b""])
    ends.loop.until(lambda: len(ends.messages) == 2)
    assert ends.messages == [[b"h", b"b"], [b"", b""]]
    ends.channel.send([b"to", b"host"])
    assert ends.host.poll(0) and ends.host.receive() == [b"to", b"host"]
    assert not ends.faults and not ends.ended


def test_what_the_host_does_not_take_yet_waits_and_comes_in_order(ends: Ends) -> None:
    sent = flood(ends, 300)
    seen = []
    while len(seen) < len(sent):
        while ends.host.poll(0):
            seen.append(ends.host.receive())
        seen_before = len(seen)
        ends.loop.until(lambda before=seen_before: len(sent) == before or ends.host.poll(0))
    assert seen == sent
    ends.host.send([b"still", b"heard"])
    ends.loop.until(lambda: ends.messages)
    assert ends.loop._poll.poll(0) == [], "it is still woken by a socket that has room"


def test_a_host_that_reads_nothing_is_a_fault_and_costs_no_more(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTBOX_BYTES", 1 << 20)
    flood(ends, 500)
    assert len(ends.faults) == 1 and "it does not read: 1 MiB" in ends.faults[0]
    assert ends.channel._outbox.size == 0 and ends.loop.watched == 0


@pytest.mark.parametrize("lengths", [(1025, 0), (0, (8 << 20) + 1)])
def test_what_is_no_message_is_a_fault_after_those_before_it(ends: Ends, lengths: tuple[int, int]) -> None:
    ends.host.send([b"good", b"one"])
    ends.host.socket.sendall(struct.pack("!II", *lengths) + b"and more")
    ends.loop.until(lambda: ends.faults)
    assert ends.messages == [[b"good", b"one"]] and "no message of a driver" in ends.faults[0]
    ends.host.send([b"too", b"late"])
    ends.channel.drain()
    ends.channel.send([b"to", b"nobody"])
    assert len(ends.messages) == 1 and len(ends.faults) == 1 and not ends.host.poll(0)


@pytest.mark.parametrize("unread", [False, True])
def test_the_end_of_the_other_side_is_told_once(ends: Ends, unread: bool) -> None:
    """A socket that is closed with bytes unread resets the connection."""
    if unread:
        ends.channel.send([b"never", b"read"])
    ends.host.send([b"last", b"words"])
    ends.host.close()
    ends.loop.until(lambda: ends.ended)
    ends.channel.send([b"to", b"nobody"])
    ends.channel.drain()
    assert ends.messages == [[b"last", b"words"]]
    assert ends.ended == 1 and ends.loop.watched == 0 and not ends.faults


def test_what_is_sent_to_an_end_that_is_closed_is_dropped(ends: Ends) -> None:
    ends.host.close()
    ends.channel.send([b"to", b"nobody"])
    ends.channel.send([b"to", b"nobody"])
    assert ends.channel._outbox.size == 0
    ends.loop.until(lambda: ends.ended)


def test_an_end_that_closes_while_messages_wait_for_it_is_noticed(ends: Ends) -> None:
    flood(ends, 100)
    ends.host.close()
    ends.loop.until(lambda: ends.ended)
    assert ends.channel._outbox.size == 0


def test_a_flood_from_a_host_leaves_time_for_others(ends: Ends) -> None:
    sending = threading.Thread(target=lambda: [ends.host.send([b"h", BODY]) for _ in range(500)])
    sending.start()
    ends.loop.until(lambda: ends.messages)
    ends.channel._happened()
    assert len(ends.messages) < 100
    ends.loop.until(lambda: len(ends.messages) == 500)
    sending.join()


def test_last_words_are_heard_but_not_for_ever(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    ends.host.send([b"last", b"words"])
    ends.channel.drain()
    assert ends.messages == [[b"last", b"words"]]
    monkeypatch.setattr(module, "_READ_BYTES", 16)
    ends.answer = lambda: ends.host.send([b"more", b"four"])
    ends.host.send([b"more", b"four"])
    ends.channel.drain()
    assert len(ends.messages) == 1 + module._LAST_READS


def test_whoever_listens_may_close_it(ends: Ends) -> None:
    ends.answer = ends.channel.close
    ends.host.send([b"the", b"end"])
    ends.loop.until(lambda: ends.messages)
    assert ends.loop.watched == 0


def test_programs_started_meanwhile_inherit_neither_end(ends: Ends) -> None:
    look = "import os; print(*[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n != '3'])"
    seen = subprocess.run([sys.executable, "-c", look], stdout=subprocess.PIPE, close_fds=False, check=True)
    inodes = [os.fstat(end.fileno()).st_ino for end in (ends.channel._socket, ends.channel.theirs)]
    assert not [inode for inode in inodes if f"socket:[{inode}]".encode() in seen.stdout]


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_any_bytes_are_messages_or_one_fault(pieces: list[bytes]) -> None:
    ends = Ends()
    for piece in pieces:
        ends.host.socket.sendall(piece)
        ends.channel._happened()
    assert len(ends.faults) <= 1
    ends.close()

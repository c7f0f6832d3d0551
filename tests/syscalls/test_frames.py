"""Messages in a byte stream: however it is cut, what comes out is what went in; what announces too much is refused."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.syscalls.errors import BadCall, LlmosError, TooLarge
from llmos.syscalls.frames import Decoder, Outbox
from llmos.syscalls.wire import HEADER_BYTES, LIMITS

SMALL = st.binary(max_size=200)
LARGE = st.integers((1 << 16) - 2, (1 << 16) + 2).map(lambda size: b"\x5a" * size)
MESSAGES = st.lists(st.tuples(SMALL, SMALL | LARGE), max_size=6)
CUTS = st.lists(st.integers(1, 90_000), max_size=20).map(lambda cuts: [*cuts, 20_000])


def stream(messages: list[tuple[bytes, bytes]]) -> bytes:
    """The bytes of messages, written out by hand."""
    return b"".join(struct.pack("!II", len(header), len(body)) + header + body for header, body in messages)


@given(MESSAGES, CUTS)
def test_any_cut_of_the_stream_gives_the_same_messages(messages: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    data, decoder, seen, turn = stream(messages), Decoder(), [], 0
    while data:
        size = cuts[turn % len(cuts)]
        seen += decoder.feed(data[:size])
        data, turn = data[size:], turn + 1
    assert seen == messages


@given(st.lists(st.tuples(SMALL, SMALL), max_size=4))
def test_a_stream_of_single_bytes_too(messages: list[tuple[bytes, bytes]]) -> None:
    decoder = Decoder()
    assert [m for byte in stream(messages) for m in decoder.feed(bytes([byte]))] == messages


@given(MESSAGES, CUTS)
def test_what_is_added_leaves_in_order_however_little_is_taken(
    messages: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    outbox, taken, turn = Outbox(), b"", 0
    for message in messages:
        outbox.add(message)
    while outbox:
        assert outbox.size == len(stream(messages)) - len(taken)
        part = b"".join(outbox.buffers())[: cuts[turn % len(cuts)]]
        taken, turn = taken + part, turn + 1
        outbox.sent(len(part))
    assert taken == stream(messages) and outbox.size == 0 and outbox.buffers() == []


def test_many_messages_leave_in_several_calls() -> None:
    outbox = Outbox()
    for number in range(1000):
        outbox.add([b"%d" % number, b""])
    assert len(outbox.buffers()) < 1000
    taken = b""
    while outbox:
        part = b"".join(outbox.buffers())
        taken += part
        outbox.sent(len(part))
    assert [header for header, _ in Decoder().feed(taken)] == [b"%d" % number for number in range(1000)]


@pytest.mark.parametrize("frames", [[], [b""], [b"", b"", b""]])
def test_a_message_has_two_frames(frames: list[bytes]) -> None:
    with pytest.raises(ValueError, match="values to unpack"):
        Outbox().add(frames)


@given(st.binary(max_size=400), CUTS)
def test_any_bytes_are_messages_or_a_typed_error(data: bytes, cuts: list[int]) -> None:
    decoder = Decoder()
    try:
        for size in cuts:
            for header, body in decoder.feed(data[:size]):
                assert len(header) <= HEADER_BYTES and len(body) <= LIMITS.message_bytes
            data = data[size:]
    except (BadCall, TooLarge):
        pass


@pytest.mark.parametrize(
    ("header", "body", "error"), [(HEADER_BYTES + 1, 0, BadCall), (0, LIMITS.message_bytes + 1, TooLarge)]
)
def test_lengths_above_the_limits_are_refused_before_their_bytes_come(
    header: int, body: int, error: type[LlmosError]
) -> None:
    decoder = Decoder()
    messages = decoder.feed(stream([(b"h", b"b")]) + struct.pack("!II", header, body))
    assert next(messages) == (b"h", b"b")
    with pytest.raises(error, match="announced"):
        next(messages)


def test_the_largest_message_passes_without_being_copied_again_and_again() -> None:
    """A copy of all that is there for each piece would move 64 GiB here."""
    message = (b"h" * HEADER_BYTES, bytes(LIMITS.message_bytes))
    data, decoder, seen = stream([message]), Decoder(), []
    for place in range(0, len(data), 512):
        seen += decoder.feed(data[place : place + 512])
    assert seen == [message]
    outbox = Outbox()
    tracemalloc.start()
    outbox.add(message)
    taken = 0
    while outbox:
        taken += min(512, outbox.size)
        outbox.sent(min(512, outbox.size))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert taken == len(data)

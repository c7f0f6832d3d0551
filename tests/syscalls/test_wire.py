"""Frames: what goes in comes out, any bytes get a typed answer, and the limits hold on both sides."""

from __future__ import annotations

import struct
from datetime import UTC
from typing import Any

import msgpack
import msgspec
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.syscalls import calls, driver, wire
from llmos.syscalls.errors import BadArgument, BadCall, LlmosError, NoDeviceMemory, TooLarge, from_wire
from llmos.syscalls.spec import SYSCALLS, CallSpec, check
from llmos.syscalls.types import Handle, Reason, Sampling, Text
from llmos.syscalls.wire import LIMITS, Message, MessageKind, Progress, Reply, pack, unpack, unpack_body, unpack_header

ALL_CALLS = [*SYSCALLS.values(), *driver.HOST_CALLS.values()]
EVENTS = [driver.Ready, driver.Beat, driver.MetricEvent, driver.Capacity, driver.Spent, driver.Memory, driver.Fault]


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_any_bytes_are_a_message_or_a_typed_error(frames: list[bytes]) -> None:
    try:
        message = unpack(frames)
    except (BadCall, TooLarge):
        return
    assert isinstance(message, Message)


@given(st.binary(max_size=64))
def test_any_body_behind_a_good_header_is_a_map_or_a_typed_error(body: bytes) -> None:
    header = pack(MessageKind.CALL, 1, "infer")[0]
    try:
        message = unpack([header, body])
    except (BadCall, TooLarge):
        return
    assert message == Message(MessageKind.CALL, 1, "infer", msgpack.unpackb(body, strict_map_key=False))


@given(st.data())
@settings(max_examples=300)
def test_a_damaged_message_is_a_message_or_a_typed_error(data: st.DataObject) -> None:
    frame = bytearray(pack(MessageKind.CALL, 7, "infer", data.draw(strategies.MAPS))[1])
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] = data.draw(st.integers(0, 255))
    frame = frame[: data.draw(st.integers(0, len(frame)))]
    try:
        unpack_body(bytes(frame))
    except (BadCall, TooLarge):
        return


@pytest.mark.parametrize("spec", ALL_CALLS, ids=lambda spec: f"{spec.cls.__name__}")
@given(data=st.data())
@settings(max_examples=15)
def test_a_call_survives_the_wire(spec: CallSpec, data: st.DataObject) -> None:
    call = check(spec, data.draw(strategies.bodies(spec)))
    message = unpack(pack(MessageKind.CALL, 1, spec.name, call))
    assert check(spec, message.body) == call
    assert (message.kind, message.request, message.name) == (MessageKind.CALL, 1, spec.name)


@pytest.mark.parametrize("spec", ALL_CALLS, ids=lambda spec: f"{spec.cls.__name__}")
@given(data=st.data())
@settings(max_examples=15)
def test_a_result_survives_the_wire(spec: CallSpec, data: st.DataObject) -> None:
    value = msgspec.convert(data.draw(strategies.of(spec.result)), spec.result)
    reply = Reply(value=value, reasons=[Reason(code="x", text="why", numbers={"n": 1})], request="r1")
    body = unpack(pack(MessageKind.REPLY, 1, "", reply)).body
    again = msgspec.convert(body, Reply)
    assert (again.reasons, again.request) == (reply.reasons, "r1")
    assert msgspec.convert(again.value, spec.result, builtin_types=(bytes,)) == value


@pytest.mark.parametrize("event", EVENTS)
@given(data=st.data())
@settings(max_examples=15)
def test_an_event_of_a_host_survives_the_wire(event: Any, data: st.DataObject) -> None:
    value = msgspec.convert(data.draw(strategies.of(event)), event)
    body = unpack(pack(MessageKind.EVENT, 0, "", value)).body
    assert msgspec.convert(body, driver.HostEvent) == value


@given(strategies.MAPS)
def test_msgspec_reads_and_writes_the_same_bytes(body: dict[str, Any]) -> None:
    """A second codec as oracle."""
    packed = pack(MessageKind.REPLY, 1, "", body)[1]
    assert strategies.same(msgspec.msgpack.decode(packed), body)
    assert strategies.same(unpack_body(msgspec.msgpack.encode(body)), body)


ODD = (
    st.datetimes(timezones=st.just(UTC) | st.none())
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.binary().map(bytearray)
    | st.sampled_from(MessageKind)
    | st.tuples(st.integers(0, 9), st.text(max_size=3))
    | st.frozensets(st.integers(0, 9), max_size=3)
)


@given(st.dictionaries(st.text(max_size=5) | st.integers(-9, 9), strategies.PLAIN | ODD, max_size=5))
def test_what_is_sent_is_what_msgpack_makes_of_plain_data(body: dict[str, Any]) -> None:
    """Nothing becomes an extension type: a time with its zone is text, as it is everywhere in the contract."""
    plain = msgspec.to_builtins(body, builtin_types=(bytes,), str_keys=False)
    assert pack(MessageKind.REPLY, 1, "", body)[1] == msgpack.packb(plain)


@given(st.sampled_from(MessageKind), st.integers(0, 2**63 - 1), st.text(max_size=40))
def test_a_header_is_what_msgpack_makes_of_it(kind: MessageKind, request: int, name: str) -> None:
    header = wire.pack_header(kind, request, name)
    assert header == msgpack.packb([wire.PROTOCOL, kind.value, request, name])
    assert unpack_header(header) == (kind, request, name)


def test_a_header_in_other_bytes_is_the_same_header() -> None:
    assert unpack_header(msgpack.packb([1.0, "call", 1, "infer"])) == (MessageKind.CALL, 1, "infer")


def test_a_body_is_empty_by_default() -> None:
    assert unpack(pack(MessageKind.CANCEL, 3)).body == {}


def test_bytes_travel_as_bytes() -> None:
    call = calls.WriteFile(file=Handle(2), offset=0, data=b"\0\xff")
    message = unpack(pack(MessageKind.CALL, 1, "write_file", call))
    assert message.body["data"] == b"\0\xff"


def test_map_keys_keep_their_type() -> None:
    call = calls.Infer(model=Handle(1), input=Text(text="x"), sampling=Sampling(logit_bias={5: -1.0}))
    body = unpack(pack(MessageKind.CALL, 1, "infer", call)).body
    assert body["sampling"]["logit_bias"] == {5: -1.0}


HEADER = [wire.PROTOCOL, "call", 1, "infer"]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"\xc1", "not msgpack"),
        (b"\x94\x01\xa1\x99\x01\xa1x", "not msgpack"),
        (msgpack.packb({}), "not a list"),
        (msgpack.packb(HEADER[:3]), "not a list"),
        (msgpack.packb([99, *HEADER[1:]]), "protocol 99"),
        (msgpack.packb([1, "shout", 1, "x"]), "'shout'"),
        (msgpack.packb([1, 5, 1, "x"]), "kind 5"),
        (msgpack.packb([1, "call", -1, "x"]), "-1"),
        (msgpack.packb([1, "call", 2**63, "x"]), str(2**63)),
        (msgpack.packb([1, "call", True, "x"]), "True"),
        (msgpack.packb([1, "call", "1", "x"]), "'1'"),
        (msgpack.packb([1, "call", 1, 5]), "name 5"),
        (msgpack.packb([1, "call", 1, "x" * 2000]), "1024"),
    ],
)
def test_a_bad_header_is_named(header: bytes, text: str) -> None:
    with pytest.raises(BadCall, match=text):
        unpack_header(header)


@pytest.mark.parametrize("request_id", [0, 1, 2**63 - 1])
def test_a_request_id_is_a_natural_number(request_id: int) -> None:
    assert unpack_header(pack(MessageKind.CALL, request_id, "infer")[0]) == (MessageKind.CALL, request_id, "infer")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_message_has_two_frames(count: int) -> None:
    with pytest.raises(BadCall, match=f"this one has {count}"):
        unpack([b""] * count)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x80\x80",
        msgpack.packb([1]),
        msgpack.packb(5),
        b"\x81\xa1a\xa1\xff",
        b"\x81\x90\x01",
        b"\x81\xa1a\xc7\x00\x05",
        msgpack.packb({"a": msgpack.ExtType(5, b"xyz")}),
        msgpack.packb({"a": msgpack.Timestamp(0)}),
    ],
    ids=["empty", "reserved", "trailing", "list", "number", "bad-text", "list-as-key", "empty-ext", "ext", "timestamp"],
)
def test_a_bad_body_is_a_bad_call(body: bytes) -> None:
    with pytest.raises(BadCall):
        unpack_body(body)


def nested(levels: int) -> bytes:
    """A map that holds `levels - 1` lists in each other."""
    return b"\x81\xa1a" + b"\x91" * (levels - 1) + b"\xc0"


def test_the_depth_is_limited() -> None:
    unpack_body(nested(LIMITS.depth))
    for levels in (LIMITS.depth + 1, 1000):
        with pytest.raises(TooLarge, match="deeper than 64") as raised:
            unpack_body(nested(levels))
        assert raised.value.limit == LIMITS.depth
    with pytest.raises(BadCall):
        unpack_body(nested(5000))


def test_maps_count_as_levels_too() -> None:
    with pytest.raises(TooLarge):
        unpack_body(b"\x81\xa1a" * (LIMITS.depth + 1) + b"\xc0")


def test_the_sender_checks_the_depth() -> None:
    value: Any = None
    for _ in range(LIMITS.depth):
        value = [value]
    with pytest.raises(TooLarge, match="deeper than 64"):
        pack(MessageKind.CALL, 1, "infer", {"a": value})


def test_what_contains_itself_cannot_be_sent() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TooLarge, match="contains itself"):
        pack(MessageKind.CALL, 1, "infer", {"a": value})


@pytest.mark.parametrize("value", [2**64, "\ud800", object()], ids=["integer", "surrogate", "object"])
def test_what_msgpack_has_no_form_for_cannot_be_sent(value: Any) -> None:
    with pytest.raises(BadArgument, match="cannot be sent") as raised:
        pack(MessageKind.CALL, 1, "infer", {"a": value})
    assert raised.value.got


@pytest.mark.parametrize("kind", [kind for kind in MessageKind if kind is not MessageKind.CALL])
def test_what_is_no_text_travels_escaped_in_an_answer(kind: MessageKind) -> None:
    frames = pack(kind, 1, "", {"a\udcff": ["h\udcff", "ü", b"\xff"]})
    assert unpack(frames).body == {"a\\udcff": ["h\\udcff", "ü", b"\xff"]}
    with pytest.raises(BadArgument, match="cannot be sent"):
        pack(kind, 1, "", {"a": ["h\udcff", 2**64]})


def test_the_sender_checks_the_size() -> None:
    pack(MessageKind.CALL, 1, "x", {"a": b"x" * (LIMITS.message_bytes - 100)})
    with pytest.raises(TooLarge, match="buffer") as raised:
        pack(MessageKind.CALL, 1, "x", {"a": b"x" * LIMITS.message_bytes})
    assert raised.value.limit == LIMITS.message_bytes < raised.value.got


def test_the_sender_checks_the_count() -> None:
    with pytest.raises(TooLarge, match="items") as raised:
        pack(MessageKind.CALL, 1, "x", {"a": [0] * (LIMITS.items + 1)})
    assert raised.value.fields() == {"limit": LIMITS.items, "got": LIMITS.items + 1}


def test_the_receiver_checks_the_size() -> None:
    with pytest.raises(TooLarge) as raised:
        unpack_body(b"\x80" + b"\0" * LIMITS.message_bytes)
    assert raised.value.fields() == {"limit": LIMITS.message_bytes, "got": LIMITS.message_bytes + 1}


@pytest.mark.parametrize("opener", [b"\xdd", b"\xdf"], ids=["lists", "maps"])
def test_lengths_that_the_frame_cannot_hold_are_refused_at_once(opener: bytes) -> None:
    """Each level would reserve memory for a million items otherwise."""
    frame = b"\x81\xa1a" + (opener + struct.pack(">I", LIMITS.items)) * 900
    with pytest.raises(BadCall, match="exceeds"):
        unpack_body(frame)


def test_an_error_frame_is_read_back() -> None:
    error = NoDeviceMemory("no room on cpu0", needed=8, free=3, evictable=2, by_whom="tiny", request="r5")
    message = unpack(wire.error_frames(9, error))
    assert (message.kind, message.request) == (MessageKind.ERROR, 9)
    again = from_wire(message.body)
    assert isinstance(again, LlmosError)
    assert again.to_wire() == error.to_wire()


def test_progress_names_its_parts() -> None:
    body = unpack(pack(MessageKind.PROGRESS, 1, "", Progress(done=3, total=9, unit="bytes", stage="reading"))).body
    assert body == {"done": 3, "total": 9, "unit": "bytes", "stage": "reading"}


def test_the_terminal_kinds() -> None:
    assert {kind.value for kind in wire.TERMINAL} == {"reply", "error", "end"}
    assert {kind.value for kind in MessageKind} == {
        "call", "reply", "error", "progress", "chunk", "end", "credit", "cancel", "event", "beat"
    }  # fmt: skip

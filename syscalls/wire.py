"""The wire: `[header][body]`, both msgpack; programs send them over ZeroMQ, hosts over a socket pair (`frames`).

header = `[protocol, kind, request id, name]`, where `name` is the call's name in a `call` and empty otherwise.
A request id is chosen by the caller, positive, and unique among its requests in flight; 0 speaks of no single request.
Exactly one terminal frame (`reply`, `error` or `end`) answers a `call`; `progress` and `chunk` may come before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgpack
import msgspec

from .errors import BadArgument, BadCall, LlmosError, TooLarge
from .types import Reason, Value, WireLimits

PROTOCOL = 1
FEATURES = ("stream", "buffers", "idempotency", "resume")

LIMITS = WireLimits(message_bytes=8 << 20, inline_bytes=64 << 10, depth=64, items=1 << 20)
"""The sizes this side keeps to. Bytes above `inline_bytes` travel in a shared buffer."""
HEADER_BYTES = 1024


class MessageKind(StrEnum):
    CALL = "call"
    REPLY = "reply"
    ERROR = "error"
    PROGRESS = "progress"
    CHUNK = "chunk"
    END = "end"
    CREDIT = "credit"
    CANCEL = "cancel"
    EVENT = "event"
    BEAT = "beat"


_KINDS = {kind.value: kind for kind in MessageKind}
_OPENERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""First bytes of msgpack's lists and maps: fixmap, fixarray, array 16 and 32, map 16 and 32."""
_CONTAINERS = frozenset({list, dict, tuple})
# msgspec is quicker, msgpack is the measure: what msgspec refuses goes through msgpack, for its result or its error.
_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(tuple[int, str, int, str]).decode
TERMINAL = frozenset({MessageKind.REPLY, MessageKind.ERROR, MessageKind.END})


@dataclass(frozen=True, slots=True)
class Message:
    """One message, decoded as far as plain types."""

    kind: MessageKind
    request: int
    name: str
    body: dict[str, Any]


class Reply(Value):
    """Body of `reply` and `end`: the result, the decisions behind it, and the request's stable id."""

    value: Any = None
    reasons: list[Reason] = []
    request: str = ""


class Progress(Value):
    """How far long work has come; `total` 0 means unknown."""

    done: int
    total: int = 0
    unit: str = ""
    stage: str = ""


def pack(kind: MessageKind, request: int, name: str = "", body: Any = None) -> list[bytes]:
    """Frames of one message. `body` is a Struct or a map of plain types.

    Text that is no valid Unicode (an undecodable file name) makes a call fail; in an answer it travels escaped.

    Raises:
        BadArgument: the body holds what cannot travel, such as an integer of more than 64 bits.
        TooLarge: the message exceeds one of `LIMITS`.
    """
    packed = _packb({} if body is None else body, strict=kind is MessageKind.CALL)
    if len(packed) > LIMITS.message_bytes:
        raise TooLarge(
            f"the message has {len(packed)} bytes, the limit is {LIMITS.message_bytes}: put large data into a buffer",
            limit=LIMITS.message_bytes,
            got=len(packed),
        )
    return [pack_header(kind, request, name), packed]


def pack_header(kind: MessageKind, request: int, name: str = "") -> bytes:
    """The first frame alone, for a body that is packed already."""
    return _encode((PROTOCOL, kind, request, name))


def unpack(frames: Sequence[bytes]) -> Message:
    """Decode the frames of one message.

    Raises:
        BadCall: the frames are not a message of this protocol.
        TooLarge: the body exceeds a limit.
    """
    if len(frames) != 2:
        raise BadCall(f"a message has 2 frames (header, body), this one has {len(frames)}")
    kind, request, name = unpack_header(frames[0])
    return Message(kind, request, name, unpack_body(frames[1]))


def unpack_header(frame: bytes) -> tuple[MessageKind, int, str]:
    """Kind, request id and name.

    Raises:
        BadCall: not a header of this protocol.
    """
    if len(frame) > HEADER_BYTES:
        raise BadCall(f"the header has {len(frame)} bytes, at most {HEADER_BYTES} are allowed")
    try:
        protocol, kind, request, name = _decode_header(frame)
        if protocol == PROTOCOL and 0 <= request < 2**63:
            return _KINDS[kind], request, name
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        pass  # what is wrong with it is said below
    header = _unpackb(frame, "header")
    if not isinstance(header, list) or len(header) != 4:
        raise BadCall("the header is not a list of protocol, kind, request id and name")
    protocol, kind, request, name = header
    if protocol != PROTOCOL:
        raise BadCall(f"protocol {protocol!r} is not spoken here; this side speaks {PROTOCOL}")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadCall(f"message kind {kind!r} is unknown")
    if type(request) is not int or not 0 <= request < 2**63:
        raise BadCall(f"request id {request!r} is not an integer from 0 to 2**63 - 1")
    if not isinstance(name, str):
        raise BadCall(f"call name {name!r} is not text")
    return _KINDS[kind], request, name


def unpack_body(frame: bytes) -> dict[str, Any]:
    """The body as a map of plain types.

    Raises:
        BadCall: not a msgpack map of nil, booleans, numbers, text, bytes, lists and maps.
        TooLarge: more bytes than `LIMITS.message_bytes`, or nested deeper than `LIMITS.depth`.
    """
    if len(frame) > LIMITS.message_bytes:
        raise TooLarge(
            f"the message has {len(frame)} bytes, the limit is {LIMITS.message_bytes}",
            limit=LIMITS.message_bytes,
            got=len(frame),
        )
    body = _unpackb(frame, "body")
    if not isinstance(body, dict):
        raise BadCall(f"the body is a {type(body).__name__}, not a map")
    if _may_be_too_deep(frame):
        _check_shape(body)
    return body


def _packb(body: Any, *, strict: bool) -> bytes:
    plain: Any = None
    try:
        plain = msgspec.to_builtins(body, builtin_types=(bytes,), str_keys=False)
        try:
            packed = _encode(plain)
        except (UnicodeEncodeError, OverflowError):
            packed = msgpack.packb(plain, unicode_errors="strict" if strict else "backslashreplace")
    except RecursionError:
        raise TooLarge("the message contains itself, or is nested too deep to be sent", limit=LIMITS.depth) from None
    except (TypeError, ValueError, OverflowError) as error:
        _check_shape(plain or ())
        want = "numbers of at most 64 bits, valid text, bytes, lists and maps"
        text = f"the message cannot be sent: {error}; it may hold {want}"
        raise BadArgument(text, got=str(error), want=want) from None
    if _may_be_too_deep(packed):
        _check_shape(plain)
    return packed


def _unpackb(frame: bytes, what: str) -> Any:
    # A length that the frame cannot hold would reserve memory for nothing, at every level of nesting.
    items = min(LIMITS.items, len(frame))
    try:
        return msgpack.unpackb(
            frame, strict_map_key=False, max_array_len=items, max_map_len=items, max_ext_len=0, ext_hook=_refuse
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BadCall(f"the {what} is not msgpack: {type(error).__name__}: {error}") from None


def _refuse(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code} is not used here")


def _may_be_too_deep(frame: bytes) -> bool:
    """Cheap and safe: it is no deeper than it has bytes that could open a list or map, no longer than its bytes."""
    return len(frame) - len(frame.translate(None, _OPENERS)) > LIMITS.depth or len(frame) > LIMITS.items


def _check_shape(body: Any) -> None:
    level = [body]
    for _ in range(LIMITS.depth):
        level = [child for parent in level for child in _containers(parent)]
        if not level:
            return
    raise TooLarge(f"the message is nested deeper than {LIMITS.depth} levels", limit=LIMITS.depth, got=LIMITS.depth + 1)


def _containers(parent: Any) -> list[Any]:
    if len(parent) > LIMITS.items:
        text = f"a list or map of the message has {len(parent)} items, the limit is {LIMITS.items}"
        raise TooLarge(text, limit=LIMITS.items, got=len(parent))
    children = parent.values() if isinstance(parent, dict) else parent
    if _CONTAINERS.isdisjoint(map(type, children)):
        return []
    return [child for child in children if type(child) in _CONTAINERS]


def error_frames(request: int, error: LlmosError) -> list[bytes]:
    """Frames of a terminal `error`."""
    return pack(MessageKind.ERROR, request, "", error.to_wire())

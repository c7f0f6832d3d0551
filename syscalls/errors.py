"""Every error a syscall can answer with: a stable code, a text for people, fields for programs.

Codes are group * 10 + n, in the manner of Zircon's status codes: 0x internal and support, 1x parameters, 2x state,
3x permission, 4x device, 5x files. A code is never reused. The text says what happened, with which value, and what to
try.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

_BY_CODE: dict[int, type[LlmosError]] = {}


class LlmosError(Exception):
    """Base of all errors that cross the wire.

    Subclasses declare their structured fields as annotated class attributes with a default; these become keyword
    arguments and travel in ``fields``. ``reasons`` are the kernel's decisions behind the error, as plain maps.
    """

    code: ClassVar[int] = 0
    field_names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, code: int) -> None:
        if code in _BY_CODE:
            raise TypeError(f"error code {code} of {cls.__name__} already belongs to {_BY_CODE[code].__name__}")
        cls.code = code
        cls.field_names = tuple(inspect.get_annotations(cls))
        _BY_CODE[code] = cls

    def __init__(
        self, text: str = "", *, reasons: Iterable[Mapping[str, Any]] = (), request: str = "", **fields: Any
    ) -> None:
        super().__init__(text)
        self.text = text
        self.reasons = [dict(reason) for reason in reasons]
        self.request = request
        for name, value in fields.items():
            if name not in self.field_names:
                raise TypeError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(self.field_names)}")
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.text or (type(self).__doc__ or "").partition("\n")[0]

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.field_names}

    def to_wire(self) -> dict[str, Any]:
        """The body of an ``error`` frame: plain types only, and never too large or otherwise unfit to be sent."""
        return {
            "code": self.code,
            "name": type(self).__name__,
            "message": _plain(str(self)),
            "fields": _plain(self.fields()),
            "reasons": _plain(self.reasons),
            "request": _plain(self.request),
        }


class Internal(LlmosError, code=1):
    """A driver failed in a way it did not expect."""


class NotSupported(LlmosError, code=2):
    """This is not offered here; `why` says what is missing."""

    why: str = ""


class NoResources(LlmosError, code=3):
    """A limit of the system is reached."""

    what: str = ""
    limit: int = 0


class BadArgument(LlmosError, code=10):
    """An argument has the wrong type or value."""

    name: str = ""
    got: str = ""
    want: str = ""


class BadHandle(LlmosError, code=11):
    """The handle is not open in this session; handles are never reused."""


class WrongKind(LlmosError, code=12):
    """The handle names an object of another kind."""

    want: str = ""
    got: str = ""


class BadCall(LlmosError, code=13):
    """No such call, or a message that is not one."""


class TooLarge(LlmosError, code=14):
    """The message or input exceeds a limit."""

    limit: int = 0
    got: int = 0


class BadState(LlmosError, code=20):
    """The object is not in a state that allows this."""

    state: str = ""


class TimedOut(LlmosError, code=21):
    """The deadline passed before the answer."""


class Busy(LlmosError, code=22):
    """In use, or the queue is full; try again later."""

    retry_after_ms: int = 0


class Cancelled(LlmosError, code=23):
    """Cancelled before it started."""


class PeerGone(LlmosError, code=24):
    """The driver that ran the request ended."""

    tokens_done: int = 0


class NotFound(LlmosError, code=25):
    """Nothing of that name exists."""


class Exists(LlmosError, code=26):
    """The name is taken."""


class Unavailable(LlmosError, code=27):
    """Not ready now, but expected to be."""

    retry_after_ms: int = 0


class OverQuota(LlmosError, code=28):
    """A limit of this user is reached."""

    what: str = ""
    limit: int = 0
    retry_after_ms: int = 0


class Expired(LlmosError, code=29):
    """The object's time to live has passed."""


class Denied(LlmosError, code=30):
    """A right is missing."""

    missing: str = ""


class NoDeviceMemory(LlmosError, code=40):
    """The device has not enough free bytes; `evictable` could be freed, and `by_whom` says what holds them."""

    needed: int = 0
    free: int = 0
    evictable: int = 0
    by_whom: str = ""


class DeviceFault(LlmosError, code=41):
    """The device reported a fault."""

    cause: str = ""


class DriverFailed(LlmosError, code=42):
    """The driver crashed too often; `control_object(driver, "reset")` tries again."""

    restarts: int = 0
    cause: str = ""


class BadModel(LlmosError, code=43):
    """A model file is missing, damaged or of an unknown form."""

    file: str = ""
    why: str = ""


class NotDirectory(LlmosError, code=50):
    """The path is not a folder."""


class ReadOnly(LlmosError, code=51):
    """The mount or file cannot be written."""


class NoSpace(LlmosError, code=52):
    """The storage behind the path is full."""


class Conflict(LlmosError, code=53):
    """The file changed since the expected version."""

    version: str = ""


_LONGEST = 2000
_MOST = 20


def _plain(value: Any) -> Any:
    """A value that msgpack has a form for, its texts shortened: an error may quote anything that a peer has sent. What
    comes first is most of it, and under overload errors are most of what is answered."""
    if type(value) is str and len(value) <= _LONGEST and value.isascii():
        return value
    if value is None or isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    if isinstance(value, str):
        text = value.encode(errors="replace").decode()
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
    if type(value) is dict or isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value[:_MOST]]
    return _plain(str(value))


COMMON: tuple[type[LlmosError], ...] = (
    Internal, BadArgument, BadHandle, WrongKind, BadCall, TooLarge, TimedOut, Cancelled, OverQuota, Denied
)  # fmt: skip
"""What any call may answer, beside the errors it lists itself."""


def by_code() -> dict[int, type[LlmosError]]:
    """All error classes by code."""
    return dict(_BY_CODE)


def by_name(name: str) -> type[LlmosError]:
    """The error class called `name`; KeyError when there is none."""
    return {cls.__name__: cls for cls in _BY_CODE.values()}[name]


def from_wire(body: Mapping[str, Any]) -> LlmosError:
    """Rebuild an error from the body of an `error` frame, whatever it holds.

    Unknown fields and fields of another type are dropped and an unknown code becomes `Internal`, so a newer peer is
    readable and a broken one does no harm.
    """
    code = body.get("code")
    cls = _BY_CODE.get(code, Internal) if type(code) is int else Internal
    fields, reasons = body.get("fields"), body.get("reasons")
    known = {
        name: value
        for name, value in (fields if isinstance(fields, Mapping) else {}).items()
        if name in cls.field_names and type(value) is type(getattr(cls, name))
    }
    return cls(
        str(body.get("message", "")),
        reasons=[r for r in reasons if isinstance(r, Mapping)] if isinstance(reasons, (list, tuple)) else (),
        request=str(body.get("request", "")),
        **known,
    )

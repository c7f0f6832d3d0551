"""Which HTTP status, type and code an error becomes: one table, and the body in the form of the OpenAI API.

`{"error": {"message", "type", "param", "code", "fields", "reasons"}}`; what is worth another try carries `Retry-After`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmos.syscalls import errors as kernel
from llmos.syscalls.errors import LlmosError
from llmos.userland.link import NoKernel


class HttpError(Exception):
    """What goes wrong in HTTP itself and has no error of the kernel: 401, 404 of a route, 405, 413, 415, 503."""

    def __init__(
        self,
        status: int,
        type: str,
        code: str,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.code, self.message, self.param = status, type, code, message, param
        self.headers = dict(headers or {})


class Row(NamedTuple):
    """How one class of error is answered."""

    status: int
    type: str
    code: str
    retry: bool = False
    """Trying again later helps: the answer has `Retry-After`, of a second at least."""


INVALID = "invalid_request_error"

ROWS: Mapping[type[LlmosError], Row] = {
    kernel.Internal: Row(500, "server_error", "internal"),
    kernel.NotSupported: Row(501, "not_supported_error", "not_supported"),
    kernel.NoResources: Row(503, "overloaded_error", "no_resources", retry=True),
    kernel.BadArgument: Row(400, INVALID, "bad_argument"),
    kernel.BadHandle: Row(404, "not_found_error", "bad_handle"),
    kernel.WrongKind: Row(400, INVALID, "wrong_kind"),
    kernel.BadCall: Row(400, INVALID, "bad_call"),
    kernel.TooLarge: Row(400, INVALID, "context_length_exceeded"),
    kernel.BadState: Row(409, "conflict_error", "bad_state"),
    kernel.TimedOut: Row(504, "timeout_error", "timed_out"),
    kernel.Busy: Row(503, "overloaded_error", "busy", retry=True),
    kernel.Cancelled: Row(499, INVALID, "cancelled"),
    kernel.PeerGone: Row(502, "server_error", "peer_gone"),
    kernel.NotFound: Row(404, "not_found_error", "not_found"),
    kernel.Exists: Row(409, "conflict_error", "exists"),
    kernel.Unavailable: Row(503, "overloaded_error", "unavailable", retry=True),
    kernel.OverQuota: Row(429, "rate_limit_error", "rate_limit_exceeded", retry=True),
    kernel.Expired: Row(404, "not_found_error", "expired"),
    kernel.Denied: Row(403, "permission_error", "denied"),
    kernel.NoDeviceMemory: Row(507, "server_error", "no_device_memory"),
    kernel.DeviceFault: Row(500, "server_error", "device_fault"),
    kernel.DriverFailed: Row(500, "server_error", "driver_failed"),
    kernel.BadModel: Row(422, INVALID, "bad_model"),
    kernel.NotDirectory: Row(400, INVALID, "not_directory"),
    kernel.ReadOnly: Row(403, "permission_error", "read_only"),
    kernel.NoSpace: Row(507, "server_error", "no_space"),
    kernel.Conflict: Row(409, "conflict_error", "conflict"),
}
"""A row for each class of `llmos.syscalls.errors`."""

Failure = LlmosError | HttpError | NoKernel
"""What a handler may end with and gets an answer of its own; anything else is a bug and a 500."""

FAILURES = (LlmosError, HttpError, NoKernel)
"""The same, for `except`."""


def model_not_found(name: str, why: str = "") -> HttpError:
    """No model of that name, or none that this key may use: the two are told alike."""
    text = f"there is no model {name!r} here, or this key may not use it" + (f": {why}" if why else "")
    return HttpError(404, "not_found_error", "model_not_found", text, "model")


class Answer(NamedTuple):
    """An error as HTTP tells it."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    """The map under `error`."""

    @property
    def message(self) -> str:
        """The sentence for people, for APIs that take nothing else."""
        return str(self.body["message"])


def answer_of(error: Failure) -> Answer:
    """Status, headers and body of an error."""
    if isinstance(error, HttpError):
        body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        return Answer(error.status, error.headers, {**body, "fields": {}, "reasons": []})
    if isinstance(error, NoKernel):
        return answer_of(no_kernel())
    row = ROWS.get(type(error), ROWS[kernel.Internal])
    wire = error.to_wire()
    fields = wire["fields"]
    headers = {}
    if row.retry:
        headers["Retry-After"] = str(max(1, math.ceil(fields.get("retry_after_ms", 0) / 1000)))
    body = {
        "message": wire["message"],
        "type": row.type,
        "param": fields.get("name") or None,
        "code": row.code,
        "fields": fields,
        "reasons": wire["reasons"],
    }
    return Answer(row.status, headers, body)


def no_kernel() -> kernel.Unavailable:
    """What callers are told while the kernel is away: not where its socket is."""
    return kernel.Unavailable("the kernel does not answer now; try again in a moment", retry_after_ms=1000)


def head_too_large(limit: int) -> HttpError:
    """431 for a head beyond the limit."""
    text = f"the head of the request is larger than {limit} bytes, which is the limit"
    return HttpError(431, "invalid_request_error", "headers_too_large", text, headers={"Connection": "close"})

"""Every class of error has its row: status, type, code, and when to try again."""

from __future__ import annotations

import pytest

from llmos.syscalls.errors import BadArgument, LlmosError, NoDeviceMemory, OverQuota, by_code, by_name
from llmos.userland.gateway.core.errors import (
    ROWS, HttpError, answer_of, head_too_large, model_not_found, no_kernel,
)  # fmt: skip
from llmos.userland.link import NoKernel

TABLE = """
Internal 500 server_error, NotSupported 501 not_supported_error, NoResources 503 overloaded_error,
BadArgument 400 invalid_request_error, BadHandle 404 not_found_error, WrongKind 400 invalid_request_error,
BadCall 400 invalid_request_error, TooLarge 400 invalid_request_error, BadState 409 conflict_error,
TimedOut 504 timeout_error, Busy 503 overloaded_error, Cancelled 499 invalid_request_error,
PeerGone 502 server_error, NotFound 404 not_found_error, Exists 409 conflict_error,
Unavailable 503 overloaded_error, OverQuota 429 rate_limit_error, Expired 404 not_found_error,
Denied 403 permission_error, NoDeviceMemory 507 server_error, DeviceFault 500 server_error,
DriverFailed 500 server_error, BadModel 422 invalid_request_error, NotDirectory 400 invalid_request_error,
ReadOnly 403 permission_error, NoSpace 507 server_error, Conflict 409 conflict_error
"""


def test_every_class_has_a_row() -> None:
    assert set(ROWS) == {cls for cls in by_code().values() if cls.__module__ == "llmos.syscalls.errors"}


@pytest.mark.parametrize("row", [row.strip() for row in TABLE.split(",")])
def test_the_table(row: str) -> None:
    name, status, kind = row.split()
    answer = answer_of(by_name(name)("it went wrong"))
    assert (answer.status, answer.body["type"], answer.body["message"]) == (int(status), kind, "it went wrong")
    assert ("Retry-After" in answer.headers) == (name in ("NoResources", "Busy", "Unavailable", "OverQuota"))


def test_codes_that_clients_look_at() -> None:
    codes = {cls.__name__: row.code for cls, row in ROWS.items()}
    assert codes["TooLarge"] == "context_length_exceeded" and codes["OverQuota"] == "rate_limit_exceeded"
    assert codes["NotSupported"] == "not_supported" and model_not_found("x").code == "model_not_found"


def test_the_whole_body() -> None:
    error = BadArgument("n is 0", name="n", got="0", want="1 or more", reasons=[{"code": "a.b", "text": "c"}])
    assert answer_of(error).body == {
        "message": "n is 0", "type": "invalid_request_error", "param": "n", "code": "bad_argument",
        "fields": {"name": "n", "got": "0", "want": "1 or more"}, "reasons": [{"code": "a.b", "text": "c"}],
    }  # fmt: skip
    assert answer_of(NoDeviceMemory("full", needed=5, free=3)).body["fields"]["needed"] == 5


def test_retry_after_is_in_whole_seconds_and_one_at_least() -> None:
    def after(milliseconds: int) -> str:
        return answer_of(OverQuota("slow down", retry_after_ms=milliseconds)).headers["Retry-After"]

    assert [after(0), after(1), after(1000), after(1001)] == ["1", "1", "1", "2"]


def test_a_kernel_that_is_away_is_told_without_its_socket() -> None:
    answer = answer_of(NoKernel("ipc:///secret/kernel.sock", "there is no such socket"))
    assert answer.status == 503 and "secret" not in answer.message and answer.message == str(no_kernel())


def test_errors_of_http_itself() -> None:
    answer = answer_of(HttpError(405, "invalid_request_error", "method_not_allowed", "no", headers={"Allow": "GET"}))
    assert answer.status == 405 and answer.headers == {"Allow": "GET"} and answer.body["param"] is None
    assert head_too_large(5).status == 431


def test_an_error_of_a_newer_kernel_is_a_server_error() -> None:
    class Newer(LlmosError, code=99_999):
        """From the future."""

    try:
        assert answer_of(Newer("?")).status == 500
    finally:
        from llmos.syscalls import errors

        del errors._BY_CODE[99_999]

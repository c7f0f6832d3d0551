"""What went wrong, in words and as JSON, and with which status a command ends."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.syscalls.errors import LlmosError, PeerGone
from llmos.userland.link import NoKernel
from llmos.userland.private import BootFailed

from .output import Output
from .parser import UsageError

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class CommandFailed(Exception):
    """A command that could not do its work, for a reason that is no error of a call."""


EXPECTED = (LlmosError, NoKernel, BootFailed, UsageError, CommandFailed, OSError)
"""Errors that are told to the user in words; any other exception is a bug and shows its traceback."""


def as_json(error: BaseException) -> dict[str, Any]:
    """`{code, name, message, fields}`; code 0 for what is no error of a call."""
    code = error.code if isinstance(error, LlmosError) else 0
    fields = error.fields() if isinstance(error, LlmosError) else {}
    return {"code": code, "name": type(error).__name__, "message": message(error), "fields": fields}


def message(error: BaseException) -> str:
    """What happened, with which value, and what to try."""
    if isinstance(error, OSError) and error.strerror and not isinstance(error, NoKernel):
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def report(error: BaseException, output: Output) -> int:
    """Tell the user; the exit status."""
    if output.json:
        output.errors.write(msgspec.json.encode({"error": as_json(error)}).decode() + "\n")
    else:
        output.errors.write(f"llmos: {message(error)}\n")
        for line in _details(error):
            output.errors.write(f"  {line}\n")
    output.errors.flush()
    return USAGE if isinstance(error, UsageError) else FAILED


def _details(error: BaseException) -> list[str]:
    if not isinstance(error, LlmosError):
        return []
    lines = [f"because: {reason.get('text', '')}" for reason in error.reasons if reason.get("text")]
    if isinstance(error, PeerGone) and error.tokens_done:
        lines.append(f"{error.tokens_done} tokens had been delivered")
    wait = getattr(error, "retry_after_ms", 0)
    if wait:
        lines.append(f"try again in {wait / 1000:g} s")
    if error.request:
        lines.append(f"`llmos why {error.request}` says more")
    return lines

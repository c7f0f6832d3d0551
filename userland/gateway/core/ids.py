"""Ids of requests and of traces: taken from the client where they are well formed, else made here.

Trace context: W3C Trace Context, level 1 (`traceparent: 00-<trace id>-<parent span>-<flags>`).
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_REQUEST = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")


def request_id_from(given: str | None) -> str:
    """The client's id when it is one, else a new one."""
    if given is not None and _REQUEST.match(given):
        return given
    return f"req-{os.urandom(12).hex()}"


class Trace(NamedTuple):
    """Where a request stands in a trace: `span` is ours, `parent` the caller's."""

    trace: str
    span: str
    parent: str
    flags: str

    def header(self) -> str:
        """The `traceparent` of the answer, and of what is called for it."""
        return f"00-{self.trace}-{self.span}-{self.flags}"


def trace_from(given: str | None) -> Trace | None:
    """The trace that the caller belongs to, with a new span for this request; None without one, or with a wrong one."""
    found = _PARENT.match(given) if given is not None else None
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace, 16) or not int(parent, 16):
        return None
    return Trace(trace, os.urandom(8).hex(), parent, flags)

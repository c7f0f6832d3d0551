"""What each request on a device takes, told piece by piece: pure, time is seconds, passed in.

A report says what was taken since the last one, so that accounts move while a request runs and their sum is what it
took in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmos.syscalls.driver import Spent

from .contract import Usage

REPORT_S = 0.5
"""A request that runs is reported on this often."""


@dataclass
class Meter:
    """Of one request: who it is for, and what was told of it."""

    model: str
    work_class: str
    tenant: str
    device_ns: int = 0
    tokens: int = 0
    bytes: int = 0


class Metering:
    """The requests of one device."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._meters: dict[str, Meter] = {}
        self._at = clock()

    def begin(self, request: str, model: str, work_class: str, tenant: str) -> None:
        """A request was accepted; `model` is the id of its weights."""
        if not self._meters:
            self._at = self._clock()
        self._meters[request] = Meter(model, work_class, tenant)

    def due(self) -> bool:
        """Whether it is time to report on what runs."""
        return bool(self._meters) and self._clock() - self._at >= REPORT_S

    def report(self, usage: Mapping[str, Usage]) -> list[Spent]:
        """What those that run took since the last report; nothing of those that took nothing."""
        self._at = self._clock()
        told = [self._told(request, now.device_ns, now.tokens, now.bytes) for request, now in usage.items()]
        return [spent for spent in told if spent is not None]

    def end(self, request: str, device_ns: int, tokens: int) -> Spent | None:
        """A request has ended and took this in all."""
        spent = self._told(request, device_ns, tokens, 0)
        self.forget(request)
        return spent

    def forget(self, request: str) -> None:
        """A request is no more."""
        self._meters.pop(request, None)

    def _told(self, request: str, device_ns: int, tokens: int, held: int) -> Spent | None:
        meter = self._meters.get(request)
        if meter is None:
            return None
        more_ns, more_tokens = max(0, device_ns - meter.device_ns), max(0, tokens - meter.tokens)
        more_bytes = max(0, held - meter.bytes)
        meter.device_ns += more_ns
        meter.tokens += more_tokens
        meter.bytes += more_bytes
        if not (more_ns or more_tokens or more_bytes):
            return None
        return Spent(
            work_class=meter.work_class, tenant=meter.tenant, device_ns=more_ns, tokens=more_tokens, bytes=more_bytes,
            model=meter.model, request=request,
        )  # fmt: skip

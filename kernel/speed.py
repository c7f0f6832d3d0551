"""How fast a loaded model has been: sums over its requests, and the rate of the last seconds.

Nothing here is called for each token: a running attempt counts its own, and is looked at about once a second. Pure:
times are monotonic nanoseconds, passed in.
"""

from __future__ import annotations

from math import exp

from llmos.syscalls.types import Timing

RATE_S = 10.0
"""Time constant of the rate: what happened so long ago still counts by 1/e."""
NEWEST = 0.2
"""How much the newest request counts in the mean time to the first token."""


class Speed:
    """What one set of weights has shown since it was loaded."""

    __slots__ = ("_at", "_decode_ns", "_decoded", "_running", "_seen", "_tokens", "first_token_s", "load_s", "rate")

    def __init__(self) -> None:
        self.load_s = 0.0
        """Of the last load, 0 before it."""
        self.first_token_s = 0.0
        """Moving mean of the requests that streamed, 0 when there was none."""
        self.rate = 0.0
        """Tokens per second of all requests together in the last seconds, also those without any; as of `sample`."""
        self._running: set[Attempt] = set()
        self._tokens = 0
        self._decoded = 0
        self._decode_ns = 0
        self._seen = 0
        self._at: int | None = None

    def begin(self) -> Attempt:
        """A request is under way."""
        attempt = Attempt(self)
        self._running.add(attempt)
        return attempt

    def end(self, attempt: Attempt, tokens: int | None = None) -> None:
        """It has ended, with so many new tokens; without a number it failed, and what it streamed counts."""
        self._running.discard(attempt)
        self._tokens += attempt.tokens if tokens is None else tokens

    def answered(self, tokens: int, timing: Timing) -> None:
        """A request was answered whole that has streamed, with so many tokens in each of its choices."""
        first = timing.first / 1e9
        self.first_token_s += (first - self.first_token_s) * (NEWEST if self.first_token_s else 1)
        if tokens > 1:
            self._decoded += tokens - 1
            self._decode_ns += timing.total - timing.first

    def sample(self, now: int) -> None:
        """Bring the rate up to date; called about once a second."""
        total = self._tokens + sum(attempt.tokens for attempt in self._running)
        if self._at is not None and now > self._at:
            seconds = (now - self._at) / 1e9
            self.rate += ((total - self._seen) / seconds - self.rate) * (1 - exp(-seconds / RATE_S))
            if self.rate < 0.001:
                self.rate = 0.0
        self._seen, self._at = total, now

    @property
    def stream(self) -> float:
        """Tokens per second of a single stream after its first token, over all that streamed; 0 when none did."""
        return self._decoded / (self._decode_ns / 1e9) if self._decode_ns else 0.0

    def values(self) -> dict[str, float]:
        """What was measured, for the catalogue: `load_s`, `first_token_s`, and `tokens_per_s` of a single stream."""
        found = {"load_s": self.load_s, "first_token_s": self.first_token_s, "tokens_per_s": self.stream}
        return {name: value for name, value in found.items() if value}


class Attempt:
    """What a request has shown so far, and the weights it was begun on, which a swap does not change."""

    __slots__ = ("first", "speed", "tokens")

    def __init__(self, speed: Speed) -> None:
        self.first = 0
        self.tokens = 0
        self.speed = speed

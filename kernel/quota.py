"""Tokens per minute as a token bucket that may go into debt: the cost of a request is known only when it has ended.

Pure: `now` is monotonic nanoseconds.
"""

from __future__ import annotations

from llmos.syscalls.errors import OverQuota

MINUTE = 60_000_000_000


class TokenBucket:
    """Fills at `per_minute`, holds at most one minute's worth. Spending may overdraw it; then nothing new is let in."""

    def __init__(self, per_minute: int, now: int) -> None:
        if per_minute < 1:
            raise ValueError(f"a quota of {per_minute} tokens per minute")
        self._per_minute = per_minute
        self._scaled = per_minute * MINUTE
        self._at = now

    def resize(self, per_minute: int, now: int) -> None:
        """Another quota from now on. What is left or owed stays: asking for a smaller one fills no bucket."""
        self._fill(now)
        self._per_minute = per_minute
        self._fill(now)

    def check(self, now: int) -> None:
        """Raises OverQuota with `retry_after_ms` when the balance is used up."""
        self._fill(now)
        if self._scaled >= MINUTE:
            return
        wait_ns = -(-(MINUTE - self._scaled) // self._per_minute)
        retry_after_ms = -(-wait_ns // 1_000_000)
        raise OverQuota(
            f"the quota of {self._per_minute} tokens per minute is used up; try again in {retry_after_ms} ms",
            what="tokens_per_minute",
            limit=self._per_minute,
            retry_after_ms=retry_after_ms,
        )

    def spend(self, tokens: int, now: int) -> None:
        """Take what a request used."""
        self._fill(now)
        self._scaled -= tokens * MINUTE

    def balance(self, now: int) -> int:
        """Whole tokens left; negative while in debt."""
        self._fill(now)
        return self._scaled // MINUTE

    def _fill(self, now: int) -> None:
        """Exact integers: the balance is kept in tokens * nanoseconds of a minute, so nothing is lost to rounding."""
        self._scaled = min(self._scaled + (now - self._at) * self._per_minute, self._per_minute * MINUTE)
        self._at = now

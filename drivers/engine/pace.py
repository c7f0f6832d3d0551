"""How fast one model runs, learned from its steps."""

from __future__ import annotations

FLOPS = 5e9
"""A modest guess of operations in a second, until a model's own speed is known."""


class Pace:
    """Seconds for a token, alone and among others."""

    def __init__(self, parameters: int) -> None:
        self._guess = 2.0 * parameters / FLOPS
        self._prefill = 0.0
        self._decode = 0.0
        """For a token; 0 while unknown."""

    def observe(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long."""
        if tokens > 1:
            self._prefill = _smooth(self._prefill, seconds / tokens)
        else:
            self._decode = _smooth(self._decode, seconds)

    def seconds(self, tokens: int) -> float:
        """How long a step of so many tokens will take."""
        known = self._prefill if tokens > 1 else self._decode
        return tokens * (known or self._decode or self._guess)


def _smooth(known: float, seen: float) -> float:
    return seen if known == 0.0 else 0.8 * known + 0.2 * seen

"""Guessing what follows from what was there before: prompt lookup (Saxena 2023).

Code, quotations and summaries repeat stretches of their prompt. The last tokens are looked up in everything before
them, and what followed there is the guess. It costs no model; `sampling.speculative.verify` checks it exactly.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 4
SHORTEST = 2
"""How many last tokens must be the same; the most that are count."""


class Lookup:
    """The tokens of one answer, prompt first, by what they followed; adding and asking take no longer when it grows."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._followers: dict[tuple[int, ...], int] = {}
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """These tokens follow."""
        for token in tokens:
            end = len(self._tokens)
            for length in range(SHORTEST, min(LONGEST, end) + 1):
                self._followers[tuple(self._tokens[end - length :])] = end
            self._tokens.append(token)

    def propose(self, count: int) -> list[int]:
        """The `count` tokens that followed the last ones when they came last before; none if they never did.

        Where that stretch reaches the end it is gone on with, so that a repetition is guessed as long as it is asked.
        """
        end = len(self._tokens)
        for length in range(min(LONGEST, end), SHORTEST - 1, -1):
            start = self._followers.get(tuple(self._tokens[end - length :]))
            if start is not None:
                period = end - start
                return [self._tokens[start + at % period] for at in range(count)]
        return []

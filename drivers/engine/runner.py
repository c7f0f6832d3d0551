"""What serves the requests of one loaded model: one runner for each rung of the ladder.

Every method is called on the work thread. The engine gives each model with work one bounded step after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from ..contract import OpenedContext, Request, StepEvent


class Runner(Protocol):
    """Requests in, events out.

    A request names the adapter it wants by the id of a model entry, which is the base's own id when it wants none.
    """

    rung: str

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""

    def submit(self, request: Request) -> None:
        """Accept a request. Raises BadArgument, TooLarge, NotSupported, BadState."""

    def cancel(self, requests: Collection[str]) -> list[StepEvent]:
        """End those of these requests that run or wait here, with what they have."""

    def step(self) -> list[StepEvent]:
        """Advance by one bounded step; a request's own error ends it alone."""

    def step_seconds(self) -> float:
        """How long the next step will take, as predicted."""

    def running(self) -> Sequence[str]:
        """Ids of the requests that run or wait here."""

    def kv_bytes(self) -> int:
        """Bytes held for keys, values and other state of sequences, conversations included."""

    def open_context(self, id: str, parent: str, max_tokens: int) -> OpenedContext:
        """Start a conversation, empty or as a copy of another. Raises NotFound, BadState, BadArgument, NotSupported."""

    def drop_context(self, id: str) -> int:
        """Forget a conversation, whose request is ended by the caller; returns bytes freed."""

    def close(self) -> None:
        """Drop everything."""

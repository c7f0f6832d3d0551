"""What serves the requests of one loaded model: one runner for each rung of the ladder.

Every method is called on the work thread. The engine gives each runner with work one bounded step after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ..contract import Request, StepEvent, Usage
from .kept import Kept


@dataclass(eq=False)
class Conversation:
    """A context: the tokens that requests with it continue, one request at a time.

    `held` is what its runner keeps to not compute them again (pages, or a cache); without it they are computed again.
    """

    id: str
    model: str
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    held: Any = None
    keeper: Runner | None = None
    adapter: str = ""
    """The version of an adapter that what is held was computed with."""
    used: int = 0
    """Grows with each request of any conversation: the larger the later."""

    def bytes(self) -> int:
        """Bytes that it holds of its own."""
        return 0 if self.keeper is None else self.keeper.conversation_bytes(self)

    def forget(self) -> int:
        """Drop what is kept of it but its tokens; returns bytes freed."""
        keeper, self.keeper = self.keeper, None
        return 0 if keeper is None else keeper.forget(self)

    def give_to(self, runner: Runner, adapter: str) -> None:
        """Let a runner go on with it; what another kept, or another adapter computed, is of no use to it."""
        if self.keeper is not runner or self.adapter != adapter:
            self.forget()
        self.keeper, self.adapter = runner, adapter

    def fork(self, parent: Conversation) -> None:
        """Begin as a copy of another."""
        self.tokens, self.adapter, self.keeper = list(parent.tokens), parent.adapter, parent.keeper
        if self.keeper is not None:
            self.keeper.fork(parent, self)


class Runner(Protocol):
    """Requests in, events out."""

    rung: str

    @property
    def tasks(self) -> Sequence[str]:
        """What it serves."""

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""

    def submit(self, request: Request, conversation: Conversation | None = None, adapter: str = "") -> None:
        """Accept a request, in a conversation that no other uses. Raises BadArgument, TooLarge, NotSupported."""

    def cancel(self, requests: Collection[str]) -> list[StepEvent]:
        """End those of these requests that run or wait here, with what they have."""

    def step(self) -> list[StepEvent]:
        """Advance by one bounded step; a request's own error ends it alone."""

    def set_budget(self, budget: Mapping[str, float]) -> None:
        """What lower classes of work are owed, as `contract.Device.set_budget` says."""

    def preempt(self, request: str) -> bool:
        """Let the others of its class go before a request; whether it is here."""

    def step_seconds(self) -> float:
        """How long the next step will take, as predicted."""

    def requests(self) -> Sequence[Request]:
        """What runs or waits here."""

    def usage(self) -> Mapping[str, Usage]:
        """Of each request that runs or waits here what it took so far."""

    def kv_bytes(self) -> int:
        """Bytes held for keys, values and other state, without what conversations hold of their own."""

    def conversation_bytes(self, conversation: Conversation) -> int:
        """Bytes that a conversation holds beside `kv_bytes`."""

    def fork(self, parent: Conversation, child: Conversation) -> None:
        """Let `child`, which has the tokens of `parent`, share or copy what that holds."""

    def forget(self, conversation: Conversation) -> int:
        """Drop what a conversation holds, but not its tokens; returns bytes freed."""

    def put_away(self, conversation: Conversation, pages: dict[int, Tensor], room: int) -> Kept | None:
        """What a conversation has computed, copied to host memory; None where that would take more than `room` bytes,
        or it is of no use later. `pages` are those that are there already, by number."""

    def take_back(self, conversation: Conversation, kept: Kept, adapter: str) -> bool:
        """Undo `put_away`, maybe in another runner of the same rung; whether there was room."""

    def close(self) -> None:
        """Drop everything."""


class Forgetful:
    """The part of a runner that is the same for all that keep nothing from one request to the next."""

    def kv_bytes(self) -> int:
        return 0

    def conversation_bytes(self, conversation: Conversation) -> int:
        return 0

    def fork(self, parent: Conversation, child: Conversation) -> None:
        """Nothing is kept."""

    def forget(self, conversation: Conversation) -> int:
        return 0

    def put_away(self, conversation: Conversation, pages: dict[int, Tensor], room: int) -> Kept | None:
        return None

    def take_back(self, conversation: Conversation, kept: Kept, adapter: str) -> bool:
        return False

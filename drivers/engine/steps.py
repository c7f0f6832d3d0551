"""What one step of a paged model computes: the pure plan that the scheduler makes and the runner carries out.

A page holds the keys and values of `PAGE_TOKENS` consecutive tokens for all layers. A row is a sequence of tokens with
the pages that hold what is computed of it; a step takes some tokens of each planned row through the model at once,
packed one row after the other into `[1, T]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

PAGE_TOKENS = 16


@dataclass(eq=False)
class Row:
    """A sequence under way.

    `tokens` are the prompt and what was sampled, `computed` how many of them have keys and values in `pages` (the
    n-th page holds tokens from n * PAGE_TOKENS on). `salt` separates rows that must not share pages: another adapter,
    its version, another tenant. `priority`: higher first; `deadline`: `time.monotonic` seconds, or None.
    """

    id: str
    tokens: list[int]
    salt: bytes = b""
    priority: int = 0
    deadline: float | None = None
    adapter: int = -1
    arrived: int = 0
    computed: int = 0
    pages: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    """Guessed tokens that follow `tokens`, to be verified in the next step (speculative decoding)."""
    cached: int = 0
    """How many tokens of the prompt were found computed."""
    all_logits: bool = False
    """The logits of every token are wanted, for log probabilities of the prompt: no prefix is reused."""
    host_pages: list[int] = field(default_factory=list)
    """Pages in host memory that hold what is computed while the row is swapped out; `pages` is empty then."""
    keys: list[bytes] = field(default_factory=list)
    """Prefix keys of the first full pages of `tokens`, as far as the block manager has needed them."""
    published: int = 0
    """How many of the first pages in `pages` others can find in the prefix cache."""
    ahead: int = 0
    """Tokens after `tokens` that are chosen on the device, or being chosen, and not known yet."""
    most: int = 0
    """How many tokens it has at most, where it may be `ahead`: no more are planned."""
    generation: int = 0
    """Counts its ends: what was under way for it before one is void."""
    rank: int = 0
    """Of its class of work; 0 is the highest, and goes before the others."""

    @property
    def length(self) -> int:
        """Its tokens with those that are not known yet."""
        return len(self.tokens) + self.ahead


@dataclass(frozen=True)
class RowStep:
    """The part of one row in a step: its tokens (then drafts) `start` to `start + count`.

    `logits`: of how many of the last of these the logits are wanted; 0 while a prompt is not through. `drafts`: how
    many of the last of these are drafts; the scheduler may take fewer than the row has.
    """

    row: Row
    start: int
    count: int
    logits: int
    drafts: int = 0


@dataclass(frozen=True)
class StepPlan:
    """One step. Page copies come first, in this order: to host memory, from host memory, between pages of the device.

    Each is a pair (from, to). Within one kind the order does not matter: no page is written twice, and none that is
    written is read. `preempted` lost their turn and wait again. `expired` (the deadline has passed) and `refused` (they
    can never fit into all pages) are not planned any more; every plan names them until the caller takes them away.
    """

    rows: Sequence[RowStep] = ()
    swap_out: Sequence[tuple[int, int]] = ()
    swap_in: Sequence[tuple[int, int]] = ()
    copies: Sequence[tuple[int, int]] = ()
    preempted: Sequence[Row] = ()
    expired: Sequence[Row] = ()
    refused: Sequence[Row] = ()
    turn: int | None = None
    """The class of work that went before the higher ones."""

    @property
    def tokens(self) -> int:
        """How many tokens go through the model."""
        return sum(step.count for step in self.rows)

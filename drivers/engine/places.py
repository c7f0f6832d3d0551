"""What the step scheduler knows of each row, and the bounds of a step."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from .steps import Row


@dataclass(frozen=True)
class StepLimits:
    """Bounds of one step.

    At most `rows` and `tokens` in all, `chunk` tokens of one prompt. While rows decode, prompts may stretch a step to
    `stretch` times what it takes without them and no further than `seconds`, but `least` tokens of one always go.
    `stretch` is for streams that have found their pace, with `settled` tokens. While they are fewer than the others,
    who wait or have just begun, it does not count: they would hold up most of those who are there, and decode as a
    small batch meanwhile.

    Lower classes of work may stretch a step to `stretch` times what it takes the higher ones, to `beside` times where
    one of these reads a prompt: its first token waits. Where a class has its turn before them, it takes about `turn`
    seconds of the step. `aging`: seconds that a level of priority counts for,
    twice, and after which the first row of a lower class may take pages from higher ones.
    """

    rows: int = 64
    tokens: int = 576
    chunk: int = 512
    least: int = 4
    seconds: float = 2.0
    stretch: float = 1.5
    beside: float = 1.25
    settled: int = 8
    aging: float = 30.0
    turn: float = 0.1

    def __post_init__(self) -> None:
        if not (self.rows >= 1 and 1 <= self.least <= self.chunk and self.rows + self.least <= self.tokens):
            needs = "a row, a token of a prompt beside all rows, and chunks no smaller than that"
            raise ValueError(f"{self} is too little: a step needs {needs}")


@dataclass(eq=False)
class Place:
    """A row in the queue."""

    row: Row
    number: int
    prompt: int
    order: tuple[int, float, float, int, int] = (0, 0.0, 0.0, 0, 0)
    """Class, virtual time of entering, deadline, arrival, number."""
    admitted: bool = False
    """It has its pages, as far as they were cached, and has promised to compute the rest."""
    counted: bool = False
    """`row.cached` has been told."""
    drafts: int = 0
    """How many drafts there are pages for in this step."""
    scored: int = 0
    """Of how many first tokens the logits were given."""
    again: int = 0
    """Tokens that it lost with its pages, and computes a second time."""
    furthest: int = 0
    """How many of its tokens were computed at most, at any time."""
    served: float = 0.0
    """When it last came further, or entered."""
    anchored: bool = False
    """It has waited so long that higher classes leave it the pages that it got then."""
    promised: list[Hashable] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """Of its class of work; 0 is the highest."""
        return self.row.rank

    def comes_to(self, end: int, now: float) -> None:
        """A step computes its tokens up to this one."""
        if end > self.furthest:
            self.furthest, self.served = end, now

    @property
    def left(self) -> int:
        """Tokens to be computed."""
        row = self.row
        return len(row.tokens) + row.ahead - row.computed

    @property
    def decodes(self) -> bool:
        """Somebody waits for its next token, which takes only one to be computed."""
        return self.left == 1 and self.row.length > self.prompt

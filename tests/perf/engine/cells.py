"""What was measured: one figure of one peer, with its repeats and the limit that the machine sets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peers.peer import Answer

from .limits import Rates


@dataclass
class Cell:
    """A figure of a peer: `samples` are its rounds. `limit` is in the same unit; `less`: smaller figures are better.

    `more` holds other figures of the same rounds.
    """

    suite: str
    model: str
    case: str
    peer: str
    unit: str
    samples: list[float] = field(default_factory=list)
    more: dict[str, list[float]] = field(default_factory=dict)
    less: bool = False
    ideal: Callable[[Rates], float] | None = None
    limit: float | None = None

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.samples)

    @property
    def share(self) -> float | None:
        """How much of the limit was reached."""
        if self.limit is None:
            return None
        return self.limit / self.value if self.less else self.value / self.limit

    def middle(self, name: str) -> float:
        """The median of another figure."""
        return statistics.median(self.more[name])

    def settle(self, rates: Rates) -> None:
        """Fill in the limit, once the rates of the run are known."""
        if self.ideal is not None:
            self.limit = self.ideal(rates)

    def raw(self) -> dict[str, Any]:
        """To be kept."""
        return {
            "suite": self.suite, "model": self.model, "case": self.case, "peer": self.peer, "unit": self.unit,
            "median": self.value, "limit": self.limit, "of_limit": self.share, "samples": self.samples,
            "more": self.more,
        }  # fmt: skip


def streams(answers: Sequence[Answer]) -> dict[str, float]:
    """Figures of a run: tokens a second in all, those of decoding alone, seconds to the first token (the median).

    Decoding begins when every request has its first token.
    """
    end = max(answer.times[-1] for answer in answers)
    begin = max(answer.times[0] for answer in answers)
    tokens = sum(len(answer.tokens) for answer in answers)
    later = sum(at > begin for answer in answers for at in answer.times)
    return {
        "total": tokens / end,
        "decode": later / (end - begin) if later else 0.0,
        "first": statistics.median(answer.times[0] - answer.submitted for answer in answers),
    }


def gaps(answers: Iterable[Answer], start: float = 0.0, end: float = float("inf")) -> list[float]:
    """Seconds between neighbouring tokens of the same stream, where the later one came between two times."""
    return [
        later - earlier
        for answer in answers
        for earlier, later in zip(answer.times, answer.times[1:], strict=False)
        if start < later <= end
    ]


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that is not below this share of all. Raises ValueError when there are none."""
    if not samples:
        raise ValueError("there are no samples")
    ordered = sorted(samples)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def lines(cells: Sequence[Cell]) -> list[str]:
    """The table people read: a line for each figure, the best of each case first."""
    shown = []
    cases: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        cases.setdefault((cell.suite, cell.model, cell.case), []).append(cell)
    for (suite, model, case), group in cases.items():
        shown.append(f"\n{suite}, {model}, {case}")
        for cell in sorted(group, key=lambda each: each.value, reverse=not group[0].less):
            share = "" if cell.share is None else f"{cell.share:6.2f} of {cell.limit:.4g}"
            others = "  ".join(f"{name} {cell.middle(name):.4g}" for name in cell.more)
            spread = f"{min(cell.samples):.4g}-{max(cell.samples):.4g}"
            shown.append(f"  {cell.peer:16}{cell.value:>10.4g} {cell.unit:9}{spread:>20}  {share:18}{others}")
    return shown


def agreement(tokens: Mapping[str, Sequence[int]], judge: str) -> dict[str, int]:
    """How many first tokens each peer has in common with the judge: the same model in other roundings soon differs."""
    if judge not in tokens:
        return {}
    return {
        name: next((at for at, (a, b) in enumerate(zip(mine, tokens[judge], strict=False)) if a != b), len(mine))
        for name, mine in tokens.items()
    }

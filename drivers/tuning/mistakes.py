"""The held-out rows that a model is most wrong about, with their text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .metrics import texts
from .metrics.by_objective import Gathered

SHOWN = 10
LETTERS = 200
_TAGS = 8

Texts = Callable[[int], str]
"""What a held-out row says, by its number."""


def mistakes(objective: str, gathered: Gathered, said_by: Texts, shown: int = SHOWN) -> list[dict[str, Any]]:
    """The worst first: `row` by its number among those that are held out, its `text`, what is `wanted`, what was
    `said`, and how bad it is (`by`: what is comparable within one objective). Rows that are right are not there.

    Raises:
        KeyError: the objective judges no items.
    """
    rows = gathered.rows if len(gathered.rows) else torch.arange(len(gathered.said))
    found = []
    bad, words = _BY[objective](gathered, rows)
    for place in bad.argsort(descending=True, stable=True)[:shown].tolist():
        if bad[place] <= 0:
            break
        row, wanted, said = words(place)
        text = " ".join(said_by(row).split())
        found.append({
            "row": row, "text": cut(text), "wanted": cut(wanted), "said": cut(said), "by": float(bad[place]),
        })  # fmt: skip
    return found


def cut(text: str, letters: int = LETTERS) -> str:
    """The beginning of a text, with a sign where something is missing."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


Words = Callable[[int], tuple[int, str, str]]
Worst = tuple[Tensor, Words]


def _named(gathered: Gathered, number: int) -> str:
    return str(gathered.names[number]) if number < len(gathered.names) else str(number)


def _classes(gathered: Gathered, rows: Tensor) -> Worst:
    """How likely the model holds what it says, where that is wrong."""
    likely, said = gathered.said.double().softmax(1).max(1)
    bad = torch.where(said == gathered.wanted, 0.0, likely)

    def words(n: int) -> tuple[int, str, str]:
        return int(rows[n]), _named(gathered, int(gathered.wanted[n])), _named(gathered, int(said[n]))

    return bad, words


def _tags(gathered: Gathered, rows: Tensor) -> Worst:
    """How many tags of a row are wrong."""
    said = gathered.said.argmax(1)
    numbers, place = torch.unique_consecutive(rows, return_inverse=True)
    wrong = said != gathered.wanted
    bad = torch.zeros(len(numbers)).index_add_(0, place, wrong.float())

    def words(n: int) -> tuple[int, str, str]:
        items = ((place == n) & wrong).nonzero()[:_TAGS, 0].tolist()
        tags = [[_named(gathered, int(each[item])) for item in items] for each in (gathered.wanted, said)]
        return int(numbers[n]), " ".join(tags[0]), " ".join(tags[1])

    return bad, words


def _several(gathered: Gathered, rows: Tensor) -> Worst:
    said, wanted = gathered.said > 0, gathered.wanted > 0.5

    def words(n: int) -> tuple[int, str, str]:
        names = [
            ", ".join(_named(gathered, number) for number in of[n].nonzero()[:, 0].tolist()) for of in (wanted, said)
        ]
        return int(rows[n]), names[0], names[1]

    return (said != wanted).sum(1).float(), words


def _numbers(gathered: Gathered, rows: Tensor) -> Worst:
    bad = (gathered.said.double() - gathered.wanted.double()).abs()
    return bad, lambda n: (int(rows[n]), f"{float(gathered.wanted[n]):g}", f"{float(gathered.said[n]):.6g}")


def _ends(gathered: Gathered, rows: Tensor) -> Worst:
    """What part of the answer is missing or too much."""
    _, near = texts.ends(gathered.said, gathered.wanted)

    def words(n: int) -> tuple[int, str, str]:
        wanted, said = (f"tokens {int(ends[0])} to {int(ends[1])}" for ends in (gathered.wanted[n], gathered.said[n]))
        return int(rows[n]), wanted, said

    return 1 - near, words


def _places(gathered: Gathered, rows: Tensor) -> Worst:
    return (gathered.said - 1).float(), lambda n: (int(rows[n]), "place 1", f"place {int(gathered.said[n])}")


def _margins(gathered: Gathered, rows: Tensor) -> Worst:
    """By how much the worse answer is ahead."""
    return -gathered.said, lambda n: (int(rows[n]), "ahead", f"behind by {-float(gathered.said[n]):.4g}")


_BY: Mapping[str, Callable[[Gathered, Tensor], Worst]] = {
    "classification": _classes, "token-classification": _tags, "multi-label": _several, "regression": _numbers,
    "question-answering": _ends, "embedding": _places, "preference": _margins, "multiple-choice": _margins,
}  # fmt: skip


def texts_of(rows: Sequence[Sequence[int]], decode: Callable[[Sequence[int]], str], tokens: int = 400) -> Texts:
    """What rows of tokens say; only their beginning is looked at."""
    return lambda number: decode(rows[number][:tokens])

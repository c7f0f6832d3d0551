"""Figures of written texts for many draws are those of the drawn texts."""

from __future__ import annotations

import pytest
import torch
from llmos.drivers.tuning.metrics import writing
from llmos.drivers.tuning.metrics.texts import written

SAID = ["the quick brown fox jumps", "a lazy dog sleeps all day", "", "nothing of it", "the the the the the"]
WANTED = ["the quick brown fox jumps over it", "a lazy dog sleeps all", "text", "is right here", "the dog"]


@pytest.mark.parametrize("drawn", [(0, 1, 2, 3, 4), (0, 0, 1, 4), (2, 2), (3,), (1, 0), (0, 2, 2, 2)])
def test_each_draw_has_the_figures_of_its_texts(drawn: tuple[int, ...]) -> None:
    counts = torch.zeros(2, len(SAID), dtype=torch.float64)
    for row in drawn:
        counts[1, row] += 1
    counts[0] = 1
    found = writing.figures(writing.parts(SAID, WANTED), counts)
    for draw, rows in enumerate((range(len(SAID)), drawn)):
        wanted = written([SAID[n] for n in rows], [WANTED[n] for n in rows])
        assert {name: float(value[draw]) for name, value in found.items()} == pytest.approx(wanted, abs=1e-6)


def test_texts_are_in_pairs() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        writing.parts(SAID, WANTED[:-1])

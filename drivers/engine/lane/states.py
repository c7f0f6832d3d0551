"""What the device knows of the rows that decode: one matrix of int64, a row of it for each seat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...ops.table import OpTable
from ..capture import Capture
from .seats import PAGES, Cell, Seats


class States:
    """The matrix [seats + 1, columns], see `Cell`, and what is done with it on the device.

    The last row is spare: steps are filled up with it. It has no tokens, its pages are all `spare_page`, which no row
    has, and it never moves on. `dtype` is that of the logits.
    """

    def __init__(self, seats: Seats, spare_page: int, ops: OpTable, dtype: str, capture: Capture) -> None:
        self._seats, self._capture = seats, capture
        spare = [0] * PAGES + [spare_page] * (seats.columns - PAGES)
        first = capture.up([spare])
        self.matrix = first.repeat(seats.spare + 1, 1)
        self.numbers = torch.full_like(self.matrix[:, 0], seats.spare)
        """[seats + 1]: the seats of the rows of the step under way, filled up with the spare one."""
        self._shown: list[int] = []
        spec = {"device": first.device.type, "dtype": dtype}
        self._sample = ops.choose("sample", spec).implementation.call

    def show(self, numbers: Sequence[int]) -> None:
        """Write what the seats have to be written, and the seats of a step; mostly neither has changed."""
        cells, wanted = self._seats.cells, list(numbers)
        if not cells and wanted == self._shown:
            return
        seen, count = len(wanted), len(cells)
        moved = self._capture.up([*wanted, *cells.keys(), *cells.values()])
        if wanted != self._shown:
            self.numbers[:seen].copy_(moved[:seen])
            self._shown = wanted
        if count:
            self.matrix.view(-1).index_copy_(0, moved[seen : seen + count], moved[seen + count :])
            cells.clear()

    def tokens(self, numbers: Tensor) -> Tensor:
        """The tokens [N] that seats [N] hold; 0 instead of -1, which stands for none."""
        return self.matrix[:, Cell.TOKEN].index_select(0, numbers).clamp(min=0)

    def empty(self) -> None:
        """Let the step under way be one of spare rows alone, whose states do not matter."""
        self.numbers.fill_(self._seats.spare)
        self._shown = []

    def choose_next(self, logits: Tensor, count: int) -> Tensor:
        """`choose` for the first seats that are shown."""
        numbers = self.numbers[:count]
        return self.choose(logits, numbers, self.matrix.index_select(0, numbers)) if count else numbers

    def choose(self, logits: Tensor, numbers: Tensor, rows: Tensor) -> Tensor:
        """Choose the next token of each seat [N] from its logits [N, V], as its settings `rows` [N, columns] say, and
        move it on; int64 [N], -1 where the logits are not finite."""
        heat = rows.view(torch.float64)[:, Cell.TEMPERATURE : Cell.MIN_P + 1].t().float()
        position = rows[:, Cell.POSITION]
        chosen: Tensor = self._sample(
            logits, heat[0], rows[:, Cell.TOP_K].int(), heat[1], heat[2], rows[:, Cell.SEED].contiguous(),
            rows[:, Cell.BASE] + position,
        )  # fmt: skip
        self.matrix[:, Cell.TOKEN].index_copy_(0, numbers, chosen)
        self.matrix[:, Cell.POSITION].index_copy_(0, numbers, position + rows[:, Cell.LIVE])
        return chosen

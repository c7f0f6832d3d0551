"""The whole decode step on the device: from the seats of some rows to their next tokens, asking the host for nothing.

Every tensor is made or kept here, has a shape that the number of rows alone decides, and stays where it is: a capture
of one run is good for all steps of so many rows. Pages, lengths and settings are read from the matrix of states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..attention import StepTensors
from ..paged import Packed, Placed
from ..steps import PAGE_TOKENS
from .seats import PAGES, Cell
from .states import States


class DecodeSteps:
    """Steps of 1 to `most` rows; `adapters` [most] int32 are the adapter slots of the step's rows, -1 for none.

    `logits` [N, V] and `tokens` [N] are those of the last step, of the spare rows too.
    """

    def __init__(self, packed: Packed, states: States, most: int) -> None:
        self._packed, self._states = packed, states
        self._starts = torch.arange(most + 1, dtype=torch.int32, device=packed.device)
        self._page_numbers = {chunk: self._numbers(chunk) for chunk in packed.chunks}
        self.adapters = torch.full_like(self._starts[1:], -1)
        self._tokens = torch.zeros(most, dtype=torch.long, device=packed.device)

    def of(self, rows: int, outputs: list[Tensor]) -> Callable[[], None]:
        """A step of so many rows, the spare ones counted. Each run puts its logits [rows, V] into `outputs`."""

        def run() -> None:
            outputs[:] = [self._run(rows)]

        return run

    def tokens(self, rows: int) -> Tensor:
        """What the first rows of the last step chose."""
        return self._tokens[:rows]

    def _run(self, rows: int) -> Tensor:
        numbers = self._states.numbers[:rows]
        known = self._states.matrix.index_select(0, numbers)
        ids, positions = known[:, Cell.TOKEN].clamp(min=0), known[:, Cell.POSITION]
        self.adapters[:rows].copy_(known[:, Cell.ADAPTER])
        attended = self._attended(known, rows)
        logits = self._packed.forward(Placed(ids[None], positions[None], None, attended), None)
        self._tokens[:rows].copy_(self._states.choose(logits, numbers, known))
        return logits

    def _attended(self, known: Tensor, rows: int) -> StepTensors:
        """What attention reads: one token of each row; the spare ones have a length of 0."""
        positions, live, pages = known[:, Cell.POSITION], known[:, Cell.LIVE], known[:, PAGES:]
        page = pages.gather(1, (positions // PAGE_TOKENS)[:, None])[:, 0]
        slots = page * PAGE_TOKENS + positions % PAGE_TOKENS
        starts = self._starts[: rows + 1]
        whole = StepTensors(slots, starts, ((positions + 1) * live).int(), pages.int())
        whole.chunks = {
            chunk: self._piece(slots, starts, positions, live, pages, chunk) for chunk in self._packed.chunks
        }
        return whole

    def _piece(
        self, slots: Tensor, starts: Tensor, positions: Tensor, live: Tensor, pages: Tensor, chunk: int
    ) -> StepTensors:
        """The same for layers that see no further than the chunk that a token is in."""
        first = positions // chunk * chunk
        at = first[:, None] // PAGE_TOKENS + self._page_numbers[chunk]
        table = pages.gather(1, at.clamp(max=pages.shape[1] - 1))
        return StepTensors(slots, starts, ((positions - first + 1) * live).int(), table.int())

    def _numbers(self, chunk: int) -> Tensor:
        return torch.arange(chunk // PAGE_TOKENS, device=self._packed.device)


def bucket(rows: int, buckets: Sequence[int]) -> int:
    """The rows of the step that takes so many; 0 when they are too many for all."""
    return next((size for size in buckets if size >= rows), 0)

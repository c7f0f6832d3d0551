"""Weights that are read once, from the first row to the last, and whose memory is given back on the way.

For what was quantized while it was loaded and is now packed: a large output layer would be in memory twice otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from mmap import PAGESIZE

from torch import Tensor

from ...ops.quantized import QuantizedWeight
from ..mapped import forget

LEAST_BYTES = 16 << 20
"""What is smaller is kept until it is packed."""


@dataclass(frozen=True)
class Passing(QuantizedWeight):
    """Rows that come before those asked for last are zeros from then on."""

    _given: list[int] = field(default_factory=lambda: [0])

    def rows(self, ids: Tensor | slice) -> QuantizedWeight:
        if isinstance(ids, slice) and ids.start is not None:
            self._give_back(ids.start)
        return QuantizedWeight(self.scheme, self.numbers, self.scale, self.shift, self.ins).rows(ids)

    def _give_back(self, until: int) -> None:
        """Whole pages of the numbers of rows before `until`; they lie side by side in memory that is nobody else's."""
        row, first = self.numbers.stride(0) * self.numbers.element_size(), self.numbers.data_ptr()
        start = max(self._given[0], -(-first // PAGESIZE) * PAGESIZE)
        end = (first + until * row) // PAGESIZE * PAGESIZE
        if end > start:
            forget(start, end - start)
            self._given[0] = end


def passing(weight: QuantizedWeight) -> QuantizedWeight:
    """The same weights, to be read once, if they are many."""
    if weight.numbers.nbytes < LEAST_BYTES or not weight.numbers.is_contiguous() or weight.numbers.device.type != "cpu":
        return weight
    return Passing(weight.scheme, weight.numbers, weight.scale, weight.shift, weight.ins)

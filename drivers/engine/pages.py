"""Keys and values in pages: one block of memory for all layers of a model.

A page holds `PAGE_TOKENS` tokens of one sequence, all layers one after the other, so that moving a page to host memory
and back is one copy. A layer sees its part as two strided views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .steps import PAGE_TOKENS, StepPlan


SHARED_CONTEXTS = 8
SHARED_TOKENS = 16_384


@dataclass(frozen=True)
class LayerShape:
    """What one layer keeps of a token: `heads` keys of `key_width` and as many values of `value_width` elements."""

    heads: int
    key_width: int
    value_width: int

    @property
    def elements(self) -> int:
        """Elements of one token."""
        return self.heads * (self.key_width + self.value_width)


def pool_pages(context: int) -> int:
    """How many pages a model gets: for its whole context once, and for several requests of common length."""
    tokens = max(context, min(SHARED_CONTEXTS * context, SHARED_TOKENS))
    return -(-tokens // PAGE_TOKENS) + 1


def page_bytes(layers: Sequence[LayerShape], dtype: torch.dtype) -> int:
    """Bytes of one page."""
    return PAGE_TOKENS * dtype.itemsize * sum(layer.elements for layer in layers)


class PagePool:
    """All pages of one model, and the pages in host memory that hold what was swapped out."""

    def __init__(
        self, layers: Sequence[LayerShape], pages: int, dtype: torch.dtype, device: torch.device | str = "cpu",
        host_pages: int = 0,
    ) -> None:  # fmt: skip
        width = PAGE_TOKENS * sum(layer.elements for layer in layers)
        self._layers = tuple(layers)
        self._pages = torch.empty(pages, width, dtype=dtype, device=device)
        self._host = torch.empty(host_pages, width, dtype=dtype)
        self.pages = pages
        self.host_pages = host_pages
        self.bytes = (pages + host_pages) * width * dtype.itemsize

    @property
    def tensor(self) -> Tensor:
        """All pages on the device."""
        return self._pages

    def views(self) -> list[tuple[Tensor, Tensor]]:
        """Keys [pages, heads, PAGE_TOKENS, key_width] and values [.., value_width] of each layer."""
        found, start = [], 0
        for layer in self._layers:
            parts = []
            for width in (layer.key_width, layer.value_width):
                size = layer.heads * PAGE_TOKENS * width
                part = self._pages[:, start : start + size]
                parts.append(part.view(self.pages, layer.heads, PAGE_TOKENS, width))
                start += size
            found.append((parts[0], parts[1]))
        return found

    def move(self, plan: StepPlan) -> None:
        """Carry out the page copies of a step, in their order."""
        for pairs, source, target in (
            (plan.swap_out, self._pages, self._host),
            (plan.swap_in, self._host, self._pages),
            (plan.copies, self._pages, self._pages),
        ):
            for old, new in pairs:
                target[new].copy_(source[old])

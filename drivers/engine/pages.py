"""Keys and values in pages: one block of memory for all layers of a model.

A page holds `PAGE_TOKENS` tokens of one sequence, all layers one after the other, so that moving a page to host memory
and back is one copy. A layer sees its part as two strided views. In pages of 8-bit numbers each layer has behind them
their scales, one float32 for each token and head of keys and of values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops.reference_attention import LIMITS
from .steps import PAGE_TOKENS, StepPlan


NARROW = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
"""What pages may hold instead of the model's dtype, as it is asked for."""

SCALE = torch.float32
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
    """Bytes of one page whose numbers have this dtype."""
    scales = 2 * SCALE.itemsize * sum(layer.heads for layer in layers) if dtype in LIMITS else 0
    return PAGE_TOKENS * (dtype.itemsize * sum(layer.elements for layer in layers) + scales)


class PagePool:
    """All pages of one model, and the pages in host memory that hold what was swapped out."""

    def __init__(
        self, layers: Sequence[LayerShape], pages: int, dtype: torch.dtype, device: torch.device | str = "cpu",
        host_pages: int = 0,
    ) -> None:  # fmt: skip
        each = page_bytes(layers, dtype)
        stored = torch.uint8 if dtype in LIMITS else dtype
        self._layers = tuple(layers)
        self._pages = torch.empty(pages, each // stored.itemsize, dtype=stored, device=device)
        self._host = torch.empty(host_pages, each // stored.itemsize, dtype=stored)
        self.dtype = dtype
        self.pages = pages
        self.host_pages = host_pages
        self.bytes = (pages + host_pages) * each

    @property
    def tensor(self) -> Tensor:
        """All pages on the device."""
        return self._pages

    def views(self) -> list[tuple[Tensor, Tensor]]:
        """Keys [pages, heads, PAGE_TOKENS, key_width] and values [.., value_width] of each layer."""
        return [(keys, values) for keys, values, *_ in self._parts()]

    def scales(self) -> list[dict[str, Tensor]]:
        """Of each layer `key_scale` and `value_scale` [pages, heads, PAGE_TOKENS] float32; nothing where the numbers
        have no scale."""
        names = ("key_scale", "value_scale")
        return [dict(zip(names, scales, strict=False)) for _, _, *scales in self._parts()]

    def _parts(self) -> Iterator[list[Tensor]]:
        """Views of each layer's keys and values, and of their scales where they have some."""
        start = 0
        for layer in self._layers:
            kinds: list[tuple[torch.dtype, tuple[int, ...]]]
            kinds = [(self.dtype, (layer.key_width,)), (self.dtype, (layer.value_width,))]
            kinds += [(SCALE, ())] * 2 if self.dtype in LIMITS else []
            parts = []
            for dtype, width in kinds:
                shape = (layer.heads, PAGE_TOKENS, *width)
                size = math.prod(shape) * dtype.itemsize // self._pages.itemsize
                parts.append(self._pages[:, start : start + size].view(dtype).view(self.pages, *shape))
                start += size
            yield parts

    @property
    def page_bytes(self) -> int:
        """Bytes of one page."""
        return self._pages.shape[1] * self._pages.itemsize

    def read(self, page: int) -> Tensor:
        """A copy of a page in host memory."""
        return self._pages[page].to("cpu", copy=True)

    def write(self, page: int, content: Tensor) -> None:
        """Fill a page with what was read."""
        self._pages[page].copy_(content)

    def move(self, plan: StepPlan) -> None:
        """Carry out the page copies of a step, in their order."""
        for pairs, source, target in (
            (plan.swap_out, self._pages, self._host),
            (plan.swap_in, self._host, self._pages),
            (plan.copies, self._pages, self._pages),
        ):
            for old, new in pairs:
                target[new].copy_(source[old])

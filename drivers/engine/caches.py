"""Caches that a model on pages is handed: one that tells positions, one that is the way to the pages.

Both are `Cache` objects of the library, which models ask for the length that came before and give their new keys to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache


class PositionsCache(Cache):
    """Tells a model that counts positions from the length of its cache the true position of each packed token.

    What it calls the length is, for the t-th token, its position less t: added to a count from 0 these are the
    positions. Keys and values it hands back as they are. `asked`: how often a model wanted the length.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.positions = torch.empty(0, dtype=torch.long)
        self.asked = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """[T] in place of a number."""
        self.asked += 1
        return self.positions - torch.arange(len(self.positions), device=self.positions.device)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return query_length, 0

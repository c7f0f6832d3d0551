"""The caches that a model on pages is handed."""

from __future__ import annotations

import torch

from llmos.drivers.engine.caches import PositionsCache


def test_a_count_from_the_length_gives_the_positions_of_packed_rows() -> None:
    cache = PositionsCache()
    cache.positions = torch.tensor([7, 8, 9, 0, 1, 30])
    assert torch.equal(torch.arange(6) + cache.get_seq_length(), cache.positions)
    assert cache.asked == 1
    assert (cache.get_mask_sizes(6, 0), cache.get_query_offset()) == ((6, 0), 0)


def test_keys_and_values_come_back_as_they_were() -> None:
    keys, values = torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)
    assert PositionsCache().update(keys, values, 0) == (keys, values)

"""Random packed rows with their keys and values in scattered pages, for tests and measurements of paged attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

PAGE = 16


@dataclass
class Rows:
    """Arguments of `paged_attention` in its order, and the keys and values of each row laid out flat."""

    q: torch.Tensor
    k_pages: torch.Tensor
    v_pages: torch.Tensor
    page_table: torch.Tensor
    cu_q: torch.Tensor
    lengths: torch.Tensor
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    def arguments(self) -> tuple[Any, ...]:
        return self.q, self.k_pages, self.v_pages, self.page_table, self.cu_q, self.lengths

    def queries(self, row: int) -> torch.Tensor:
        return self.q[int(self.cu_q[row]) : int(self.cu_q[row + 1])]


def make_rows(
    rows: Sequence[tuple[int, int]], heads: int, kv_heads: int, dim: int, value_dim: int,
    dtype: torch.dtype = torch.float32, seed: int = 0, layers: int = 2, page: int = PAGE,
) -> Rows:  # fmt: skip
    """`rows` are (queries, length). Pages lie in shuffled order in a block of several layers, and all places of the
    block that no row owns are NaN: whoever reads one is seen."""
    generator = torch.Generator().manual_seed(seed)
    counts = [-(-length // page) for _, length in rows]
    total = sum(counts) + 3
    order = torch.randperm(total, generator=generator).tolist()
    table = torch.full((len(rows), max(counts) + 1), -1, dtype=torch.int32)
    block = torch.full((total, layers, kv_heads * page * (dim + value_dim)), torch.nan).to(dtype)
    size = kv_heads * page * dim
    k_pages = block[:, layers - 1, :size].unflatten(-1, (kv_heads, page, dim))
    v_pages = block[:, layers - 1, size:].unflatten(-1, (kv_heads, page, value_dim))
    keys, values = [], []
    for row, (_, length) in enumerate(rows):
        own = [order.pop() for _ in range(counts[row])]
        table[row, : len(own)] = torch.tensor(own, dtype=torch.int32)
        slots = torch.tensor([own[i // page] * page + i % page for i in range(length)])
        keys.append(torch.randn(length, kv_heads, dim, generator=generator).to(dtype))
        values.append(torch.randn(length, kv_heads, value_dim, generator=generator).to(dtype))
        k_pages[slots // page, :, slots % page] = keys[-1]
        v_pages[slots // page, :, slots % page] = values[-1]
    starts = torch.tensor([0, *(count for count, _ in rows)]).cumsum(0).to(torch.int32)
    q = torch.randn(int(starts[-1]), heads, dim, generator=generator).to(dtype)
    lengths = torch.tensor([length for _, length in rows], dtype=torch.int32)
    return Rows(q, k_pages, v_pages, table, starts, lengths, keys, values)

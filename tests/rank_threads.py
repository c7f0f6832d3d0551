"""Ranks as threads of one process: what they compute together, without processes and sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

PATIENCE_S = 60.0


class ThreadTeam:
    """One rank; all share `board` and `barrier`."""

    def __init__(self, rank: int, board: list[Tensor | None], barrier: threading.Barrier) -> None:
        self.rank, self.ranks = rank, len(board)
        self._board, self._barrier = board, barrier

    def sum(self, part: Tensor) -> Tensor:
        return torch.stack(self._all(part)).sum(0)

    def gather(self, part: Tensor) -> Tensor:
        return torch.cat(self._all(part), dim=-1)

    def _all(self, part: Tensor) -> Sequence[Tensor]:
        self._board[self.rank] = part
        self._barrier.wait(PATIENCE_S)
        found = [each for each in self._board if each is not None]
        self._barrier.wait(PATIENCE_S)
        return found


def together(ranks: int, work: Callable[[ThreadTeam], Any]) -> list[Any]:
    """What each rank's work answers; when one fails the others do not wait for it."""
    board: list[Tensor | None] = [None] * ranks
    barrier = threading.Barrier(ranks)

    def run(rank: int) -> Any:
        try:
            return work(ThreadTeam(rank, board, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))

"""A way to a device whose copies are carried out late, all at once: what changes a buffer too early is seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class LateLanes:
    """Copies wait until somebody waits for them. `log` has what was done."""

    def __init__(self) -> None:
        self._begun: list[tuple[Tensor, Tensor]] = []
        self.log: list[str] = []
        self.made: list[int] = []

    def buffer(self, bytes: int) -> Tensor:
        self.made.append(bytes)
        return torch.zeros(bytes, dtype=torch.uint8)

    def send(self, source: Tensor, target: Tensor) -> None:
        self.log.append(f"send {len(source)}")
        self._begun.append((source, target))

    def mark(self) -> Callable[[], None]:
        begun = len(self._begun)
        self.log.append("mark")

        def wait() -> None:
            self.log.append("wait")
            for at, (source, target) in enumerate(self._begun[:begun]):
                target.copy_(source)
                self._begun[at] = source[:0], target[:0]

        return wait

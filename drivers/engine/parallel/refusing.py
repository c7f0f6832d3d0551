"""What a model over several ranks says to requests that need a cache of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from llmos.syscalls.errors import NotSupported

from ...contract import Request, StepEvent, Usage
from .. import causal
from ..runner import Conversation, Forgetful


class RefusingRunner(Forgetful):
    """Stands where a model on one rank has its runner of single requests."""

    rung = "G"
    tasks: Sequence[str] = (causal.TASK,)
    busy = False

    def submit(self, request: Request, conversation: Conversation | None = None, adapter: str = "") -> None:
        """Raises NotSupported."""
        why = "its model is split among ranks, which share pages alone"
        raise NotSupported(f"beams are not offered here: {why}; use a device of one rank", why=why)

    def cancel(self, requests: Collection[str]) -> list[StepEvent]:
        return []

    def step(self) -> list[StepEvent]:
        return []

    def set_budget(self, budget: Mapping[str, float]) -> None:
        """It has no work."""

    def preempt(self, request: str) -> bool:
        return False

    def step_seconds(self) -> float:
        return 0.0

    def requests(self) -> Sequence[Request]:
        return ()

    def usage(self) -> Mapping[str, Usage]:
        return {}

    def close(self) -> None:
        """It keeps nothing."""

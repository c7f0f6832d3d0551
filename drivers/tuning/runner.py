"""A tuning job among what a device serves: each of its steps is one slice.

It takes part in `Sharing` as any runner does, with one request that stands for the job: so classes of work, what lower
classes are owed, and shares apply to it as to requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from llmos.syscalls.errors import NotSupported

from ..contract import Request, Usage
from ..engine.runner import Conversation, Forgetful
from .slices import Slices

SLICE_S = 0.02
"""How long a slice is while nothing else says it."""


class TuneRunner(Forgetful):
    """One job.

    Args:
        job: the request that stands for it: its id, model, class of work and priority count.
        slices: the work.
        told: what there is to tell since it was asked last.
        ended: what there is to tell when the work has ended, given what it raised: None also when it was cancelled.
        slice_s: how long a slice is, in seconds, while no budget says it.
    """

    rung = "tune"
    tasks: Sequence[str] = ()

    def __init__(
        self, job: Request, slices: Slices, told: Callable[[], list[Any]],
        ended: Callable[[BaseException | None], list[Any]], slice_s: float = SLICE_S,
    ) -> None:  # fmt: skip
        self._job = job
        self._slices = slices
        self._told, self._ended = told, ended
        self._slice_s = slice_s
        self._held = False

    @property
    def busy(self) -> bool:
        return not self._held and not self._slices.ended

    def submit(self, request: Request, conversation: Conversation | None = None, adapter: str = "") -> None:
        """Raises NotSupported: a job takes no requests."""
        raise NotSupported(f"the job {self._job.id} takes no requests", why="it tunes a model")

    def cancel(self, requests: Collection[str]) -> list[Any]:
        if self._job.id not in requests or self._slices.ended:
            return []
        self._slices.close()
        return [*self._told(), *self._ended(None)]

    def step(self) -> list[Any]:
        self._slices.advance(self._slice_s)
        return [*self._told(), *(self._ended(self._slices.error) if self._slices.ended else ())]

    def hold(self) -> None:
        """Stand still, wherever it is."""
        self._held = True

    def go_on(self) -> None:
        """Undo `hold`."""
        self._held = False

    def set_budget(self, budget: Mapping[str, float]) -> None:
        """`slice_s`: how long a slice is, in seconds."""
        self._slice_s = budget.get("slice_s", self._slice_s)

    def preempt(self, request: str) -> bool:
        return request == self._job.id

    def step_seconds(self) -> float:
        return self._slice_s

    def requests(self) -> Sequence[Request]:
        return () if self._slices.ended else (self._job,)

    def usage(self) -> Mapping[str, Usage]:
        return {}

    def close(self) -> None:
        self._slices.close()

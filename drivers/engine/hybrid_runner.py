"""The hybrid runner (rung H): as the paged one, for models that keep a state of each request beside its pages."""

from __future__ import annotations

from torch import Tensor

from .jobs import Job
from .kept import Kept
from .paged_runner import PagedRunner
from .runner import Conversation
from .steps import Row


class HybridRunner(PagedRunner):
    """A state belongs to one row alone, so that no prefix is found again and conversations are computed again."""

    rung = "H"

    def kv_bytes(self) -> int:
        return super().kv_bytes() + self._model.state_bytes

    def put_away(self, conversation: Conversation, pages: dict[int, Tensor], room: int) -> Kept | None:
        """Nothing: pages are of no use without the states."""
        return None

    def _row(self, job: Job, number: int, adapter: str) -> Row:
        row = super()._row(job, number, adapter)
        self._blocks.truncate(row, 0)
        row.cached = 0
        return row

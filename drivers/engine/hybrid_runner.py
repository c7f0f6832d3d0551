"""The hybrid runner (rung H): as the paged one, for models that keep a state of each request beside its pages."""

from __future__ import annotations

from .jobs import Job
from .paged_runner import PagedRunner
from .steps import Row


class HybridRunner(PagedRunner):
    """A state belongs to one row alone, so that no prefix is found again and conversations are computed again."""

    rung = "H"

    def kv_bytes(self) -> int:
        return super().kv_bytes() + self._model.state_bytes

    def _row(self, job: Job, number: int, adapter: str) -> Row:
        row = super()._row(job, number, adapter)
        self._blocks.truncate(row, 0)
        row.cached = 0
        return row

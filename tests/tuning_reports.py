"""A run with a report, as the record of a run has it."""

from __future__ import annotations

from typing import Any

import torch
from llmos.drivers.tuning.judging import Evaluated
from llmos.drivers.tuning.metrics.by_objective import Gathered
from llmos.drivers.tuning.objectives.classes import Rows
from llmos.drivers.tuning.report import report


def run(names: tuple[str, ...] = ("bad", "good"), items: int = 60) -> dict[str, Any]:
    """Of a classifier that got better."""
    return {
        "id": "t-1-7", "state": "done", "step": 8, "steps": 8, "base": {"name": "tiny"},
        "recipe": {"method": "lora", "rank": 8}, "facts": {"report": made(names, items)},
    }  # fmt: skip


def made(names: tuple[str, ...], items: int) -> dict[str, Any]:
    wanted = torch.arange(items) % len(names)

    def evaluated(every: int) -> Evaluated:
        """One of so many is wrong."""
        said = torch.where(torch.arange(items) % every == 0, (wanted + 1) % len(names), wanted)
        scores = 2.0 * torch.nn.functional.one_hot(said, len(names)) + torch.linspace(0, 0.5, items)[:, None]
        sums = {name: torch.ones(4, dtype=torch.float64) for name in ("loss", "weight", "right", "items")}
        sums["loss"] = sums["loss"] / every
        return Evaluated(Gathered(scores, wanted, rows=torch.arange(items), names=names), sums)

    lengths = {"lengths": {"train": {"examples": 9, "mean": 5.5}, "held_out": {"examples": items, "mean": 5.0}}}
    texts = "a <b>film</b> & more".__str__
    return report("classification", Rows().summary, evaluated(2), evaluated(10), lambda _: texts(), lengths)

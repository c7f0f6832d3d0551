"""One tuning job under way: trained beside the model that serves, then written as an adapter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contract import TuneProgressEvent
from . import methods, reporting, serving
from .assembling import looks, training
from .judging import Evaluated
from .preparing import Prepared
from .slices import Yield
from .telling import Telling, figures_of
from .trainer import train
from .training import Progress, Report


class Running(Telling):
    """A job under way: what `Slices` works at, and what there is to tell of it."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__()
        self._prepared = prepared
        self._report: Report | None = None
        self.manifest: Mapping[str, Any] = {}
        """What the result is, once it is written."""

    @property
    def values(self) -> Mapping[str, float]:
        """The figures at the end; empty before it."""
        report = self._report
        if report is None:
            return {}
        return {**figures_of(report), "tokens": float(report.tokens), "seconds": report.seconds}

    def work(self, yield_: Yield) -> None:
        """Train and write the result. Raises what ends the job."""
        prepared = self._prepared
        prepared.job.keep.mkdir(parents=True, exist_ok=True)
        judged: list[tuple[Evaluated, Evaluated]] = []
        report = train(
            training(
                prepared, prepared.recipe, identity_of(prepared), self._tell, asked=self._taken,
                evaluated=lambda *both: judged.append(both), looks=looks(prepared),
            ),
            yield_,
        )  # fmt: skip
        self._report = report
        self.manifest = store(prepared, report, prepared.job.folder)
        for before, after in judged:
            full = reporting.write(prepared, before, after, report.looked, prepared.job.folder, yield_)
            event = TuneProgressEvent(prepared.job.id, report.steps, report.steps, {}, "report", {"report": full})
            self._events.append(event)

    def _tell(self, progress: Progress) -> None:
        job, values = self._prepared.job.id, progress.values
        if progress.stage == "evaluate":  # beside those of training, which have the same names
            values = {f"eval_{name}": value for name, value in values.items()}
        self._events.append(TuneProgressEvent(job, progress.step, progress.steps, values, progress.stage))


def identity_of(prepared: Prepared) -> Mapping[str, str]:
    """Whose checkpoints these are: those of another recipe, other data or another base are no start for this job."""
    recipe = json.dumps({**prepared.job.recipe}, sort_keys=True, default=str)
    return {
        "recipe": hashlib.sha256(recipe.encode()).hexdigest(), "data": prepared.data.digest,
        "base": prepared.job.version,
    }  # fmt: skip


def store(prepared: Prepared, report: Report, folder: Path) -> Mapping[str, Any]:
    """Write the result into a folder: what it is and where it comes from, as plain values. Raises OSError."""
    job, recipe = prepared.job, prepared.recipe
    folder.mkdir(parents=True, exist_ok=True)
    if serving.form_of(recipe, prepared.bundle.about.kind) == serving.MODEL:
        serving.store(prepared.module, recipe, prepared.bundle, folder, prepared.data.labels)
        what: Mapping[str, Any] = {"kind": "model", "how": recipe.method}
    else:
        settings = methods.export(prepared.module, folder)
        base = {"base": job.base_path, "base_version": job.version}
        what = {"kind": "adapter", "peft_type": settings["peft_type"], **base}
    return {
        **what, "recipe": dict(job.recipe), "data": dict(prepared.data.facts), "steps": report.steps,
        "ended": report.reason, "before": report.before, "after": report.after,
    }  # fmt: skip

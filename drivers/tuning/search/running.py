"""A search under way: rounds in which each trial makes a step, until the budget is used up; the best trial is kept.

What a round comes to is told to the study in the order of the trials, and new ones begin between rounds. A checkpoint
is of all trials after the same round. So a search that was interrupted makes the same passes again from there, with the
same trials in them, comes to the same bits and decides the same.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmos.syscalls.errors import BadArgument, BadModel, BadState, NotSupported

from ...contract import TuneProgressEvent
from .. import methods, reporting
from ..job import store
from ..preparing import Prepared
from ..slices import Yield
from ..telling import Telling, figures_of
from ..training import Report
from .budget import Budget
from .preparing import PreparedSearch
from .stack import Stacks, in_turn
from .study import COMPLETE, CUT, FAILED, PRUNED, Journal, Study, Told, table
from .trial import Trial, kept, load, save

JOURNAL = "trials.jsonl"


class Searching(Telling):
    """As `job.Running`, of a search."""

    def __init__(
        self, prepared: PreparedSearch, stacked: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            prepared: what is to be done.
            stacked: whether trials may share passes; each by itself otherwise.
            clock: seconds.
        """
        super().__init__()
        self._prepared, self._stacked, self._clock = prepared, stacked, clock
        self._search = prepared.search
        self._under: list[Trial] = []
        self._best: tuple[Prepared, Report] | None = None
        self._before: dict[int, Mapping[str, float]] = {}
        self._study: Study | None = None
        self.manifest: Mapping[str, Any] = {}
        """What the result is, once it is written."""

    @property
    def values(self) -> Mapping[str, float]:
        """Figures as they are known."""
        if self._study is None:
            return {}
        values = {**self._known(self._study), "seconds": self._study.spent.get("wall", 0.0)}
        if self._best is not None and self.manifest:
            values |= figures_of(self._best[1])
        return values

    def work(self, yield_: Yield) -> None:
        """Search, and write the result. Raises what ends the job."""
        self._prepared.job.keep.mkdir(parents=True, exist_ok=True)
        study = self._opened()
        self._study, self._budget = study, Budget(self._search, study.spent, self._clock)
        self._yield = self._budget.waiting(yield_)
        stacks = Stacks(self._prepared.resident.bundle, self._yield, self._budget.computed)
        self._advance = stacks if self._stacked else in_turn
        self._forget_later(study)
        for told in study.running:
            self._begin(study, told)
        while self._under or self._may_begin(study):
            self._fill(study)
            if self._under:
                self._round(study)
        self._write(study)

    def _opened(self) -> Study:
        """The study as of its last checkpoint; from its beginning, if that is not whole on the disk."""
        file = self._prepared.job.keep / JOURNAL
        identity = " ".join(self._prepared.identity.values())
        study = Study(self._search, self._prepared.evaluations, Journal(file), identity)
        folders = {number: self._prepared.folder(number) for number in study.kept}
        best = study.best
        whole = all(kept(folders[number], step) for number, step in study.kept.items())
        if whole and (best is None or self._weights(best).exists()):
            return study
        Journal(file).cut(1)
        again = Study(self._search, self._prepared.evaluations, Journal(file), identity)
        again.spent = study.spent
        return again

    def _forget_later(self, study: Study) -> None:
        """Remove what trials have kept after the checkpoint that is gone on from."""
        for folder in self._prepared.job.keep.glob("trial-*"):
            newest = study.kept.get(int(folder.name.rpartition("-")[2]), -1)
            for step in folder.glob("step-*"):
                if newest < 0 or int(step.name[5:].partition(".")[0]) > newest:
                    shutil.rmtree(step)

    # ---- trials

    def _may_begin(self, study: Study) -> bool:
        return len(study.trials) < self._search.trials and self._budget.share < 1

    def _fill(self, study: Study) -> None:
        """Begin as many trials as may be under way at once."""
        while len(self._under) < self._search.parallel and self._may_begin(study):
            self._begin(study, study.ask(study.round, self._budget.spent()))

    def _begin(self, study: Study, told: Told) -> None:
        """Take up a trial, from its checkpoint where there is one."""
        try:
            prepared = self._prepared.trial(told.number, told.parameters, self._yield)
            trial = Trial(prepared, told, self._prepared.judge(prepared), self._yield, self._budget.computed)
            with trial.run.randomness:
                trial.run.begin(self._base_figures(prepared))
        except (BadArgument, BadModel, NotSupported) as error:  # this trial's own: its values do not go together
            self._over(study, told, FAILED, str(error))
            return
        if trial.seen.figures and prepared.recipe.method in methods.LORA:
            self._before[id(prepared.data)] = trial.seen.figures
        self._under.append(trial)
        self._show(study, "trial")
        self._yield()

    def _base_figures(self, prepared: Prepared) -> Mapping[str, float] | None:
        """What the model says before it learns anything, where that is known: low-rank adapters begin at nothing."""
        return self._before.get(id(prepared.data)) if prepared.recipe.method in methods.LORA else None

    def _round(self, study: Study) -> None:
        """Each trial makes a step; what came of it is told, in order."""
        at, active, complete = study.round + 1, list(self._under), False
        wrong = self._advance(active)
        study.round = at
        for trial in active:
            self._settle(study, trial, wrong.get(trial.told.number))
            complete = complete or trial.told.state == COMPLETE
        if self._budget.share >= 1:
            for trial in list(self._under):
                trial.end()
                self._close(study, trial, CUT)
        every = self._prepared.recipe.checkpoint_every
        if self._taken() or complete or (every and at % every == 0):
            self._save(study)
        self._show(study, "train")

    def _settle(self, study: Study, trial: Trial, error: Exception | None) -> None:
        told = trial.told
        if error is not None:
            self._close(study, trial, FAILED, str(error))
        elif trial.report is not None:
            self._close(study, trial, COMPLETE)
        elif trial.evaluations > len(told.values):
            value = trial.seen.figures.get(self._search.metric, math.nan)
            self._show(study, "evaluate", {f"eval_{name}": each for name, each in trial.seen.figures.items()})
            if study.report(told, value, study.round, self._budget.spent()):
                self._close(study, trial, PRUNED)

    def _close(self, study: Study, trial: Trial, state: str, error: str = "") -> None:
        """A trial is over. Its weights are kept, if they are the best, before anybody is told so."""
        told = trial.told
        told.steps = trial.run.step
        self._under.remove(trial)
        if trial.report is not None:
            told.value = trial.report.after.get(self._search.metric, math.nan)
            if not math.isfinite(told.value):
                state, error = FAILED, f"its {self._search.metric} is {told.value}"
            elif self._search.better(told.value, study.best.value if study.best is not None else None):
                save(trial, self._weights(told))
                self._best = trial.prepared, trial.report
        self._over(study, told, state, error)

    def _over(self, study: Study, told: Told, state: str, error: str = "") -> None:
        told.error = error
        study.tell(told, state, study.round, self._budget.spent())
        self._show(study, "trial")

    def _clean(self, study: Study) -> None:
        """Remove what no trial goes on from."""
        keep = self._prepared.job.keep
        running = {self._prepared.folder(told.number).name for told in study.running}
        for folder in keep.glob("trial-*"):
            if folder.name not in running:
                shutil.rmtree(folder)
        best = study.best
        for file in keep.glob("best-*"):
            if best is None or file != self._weights(best):
                file.unlink()

    def _weights(self, told: Told) -> Path:
        return self._prepared.job.keep / f"best-{told.number:04}.safetensors"

    # ---- checkpoints, the end, and what is told

    def _save(self, study: Study) -> None:
        """All trials as they are between two rounds. Raises OSError."""
        for trial in self._under:
            trial.run.save()
        study.keep({trial.told.number: trial.run.step for trial in self._under}, study.round, self._budget.spent())
        self._clean(study)
        self._show(study, "checkpoint")

    def _write(self, study: Study) -> None:
        """The best trial is the result. Raises BadState where there is none."""
        best = study.best
        if best is None:
            errors = [told.error for told in study.trials if told.error]
            said = f"; the last one failed: {errors[-1]}" if errors else ""
            raise BadState(f"none of {len(study.trials)} trials came to an end{said}", state="failed")
        if self._best is None:
            prepared = self._prepared.trial(best.number, best.parameters, self._yield)
            self._best = prepared, load(prepared, self._weights(best))
        prepared, report = self._best
        facts = {"trials": table(study.trials), "best": best.number, "importance": dict(study.importance())}
        self._show(study, "export", facts=facts)
        folder = self._prepared.job.folder
        self.manifest = {**store(prepared, report, folder), **facts}
        if prepared.held_out:
            fresh = self._prepared.trial(best.number, best.parameters, self._yield)
            judge = self._prepared.judge(prepared)
            before, after = (replace(each, judge=judge) for each in (fresh, prepared))
            full = reporting.compared(before, after, folder, self._yield)
            self._show(study, "report", facts={"report": full})

    def _known(self, study: Study) -> dict[str, float]:
        """How many trials are over, and the best value so far: of one that is over, else of one that is under way."""
        best = study.best.value if study.best is not None else None
        for trial in self._under if best is None else ():
            if trial.told.value is not None and self._search.better(trial.told.value, best):
                best = trial.told.value
        known = {"trials_done": float(study.ended), "trials": float(self._search.trials)}
        return known if best is None else {**known, "best": best}

    def _show(
        self, study: Study, stage: str, values: Mapping[str, float] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Tell how far it is, in steps of a trial with the recipe as it is."""
        size = self._prepared.steps
        done = study.ended * size + sum(trial.run.step * size // trial.run.steps for trial in self._under)
        share = self._budget.share
        total = self._search.trials * size
        if share * total > done:  # time is up before all trials have had their turn
            total = max(done, int(done / share))
        losses = [trial.seen.values["loss"] for trial in self._under if "loss" in trial.seen.values]
        figures = {"loss": sum(losses) / len(losses)} if losses and stage == "train" else {}
        if stage == "trial":
            facts = {"trials": table(study.trials)}
        event = TuneProgressEvent(
            self._prepared.job.id, done, total, {**figures, **(values or {}), **self._known(study)}, stage, facts or {}
        )
        self._events.append(event)

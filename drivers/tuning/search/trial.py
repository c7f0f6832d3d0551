"""One trial of a search: its own adapters, optimizer and random numbers, on the base that all trials share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .. import optimizing
from ..assembling import training
from ..checkpoint import Checkpoints
from ..data.batches import steps_of
from ..job import identity_of
from ..objectives.protocol import Objective
from ..preparing import Prepared
from ..recipe import Recipe
from ..trainer import Run
from ..training import Progress, Report
from .study import Told

EVALUATIONS = 9
"""Of a trial whose recipe does not say when: at a third and at a ninth of its way others are known as well."""
_NEVER = 1 << 62


def every(recipe: Recipe, steps: int) -> int:
    """Steps between the evaluations of a trial."""
    return recipe.evaluate_every or max(1, steps // EVALUATIONS)


class Seen:
    """What a run has told last; apart from the trial, which then goes as soon as nobody has it any more."""

    def __init__(self) -> None:
        self.figures: Mapping[str, float] = {}
        """Of an evaluation."""
        self.values: Mapping[str, float] = {}
        """Of a step: loss, learning_rate, ..."""

    def tell(self, progress: Progress) -> None:
        """Take note."""
        if progress.stage == "evaluate":
            self.figures = progress.values
        elif progress.stage == "train":
            self.values = progress.values


class Trial:
    """A trial under way.

    Args:
        prepared: its own job; checkpoints go below its `keep`.
        told: what the study knows of it.
        judge: what held-out rows of all trials are evaluated with.
        yield_: gives way to others; inside of a pass also.
        clock: seconds of computing.
    """

    def __init__(
        self, prepared: Prepared, told: Told, judge: Objective, yield_: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        steps = steps_of(prepared.recipe, len(prepared.batches))
        recipe = replace(prepared.recipe, evaluate_every=every(prepared.recipe, steps), checkpoint_every=_NEVER)
        self._clock, self.seen, self.judge = clock, Seen(), judge
        self.prepared, self.told = replace(prepared, recipe=recipe), told
        self.run = Run(
            training(prepared, recipe, identity_of(prepared), self.seen.tell, clock=clock, judge=judge), yield_
        )
        self.report: Report | None = None
        """When it has come to its end."""

    @property
    def evaluations(self) -> int:
        """How many it has had between its steps."""
        return min(self.run.step, self.run.steps - 1) // self.prepared.recipe.evaluate_every

    def advance(self) -> None:
        """One step, with what is due after it. Raises what `train` does."""
        began = self._clock()
        with self.run.randomness:
            self.run.advance()
            if self.run.over:
                self.report = self.run.finish()
        self.told.seconds += self._clock() - began

    def end(self) -> None:
        """End it where it is."""
        with self.run.randomness:
            self.report = self.run.finish()


def save(trial: Trial, file: Path) -> None:
    """Keep what a trial came to, whole or not at all. Raises OSError."""
    assert trial.report is not None
    moving = optimizing.trainable(trial.prepared.module)
    part = file.with_suffix(".part")
    tensors = {name: value.detach().contiguous() for name, value in moving.items()}
    save_file(tensors, part, metadata={"report": json.dumps(asdict(trial.report))})
    part.replace(file)


@torch.no_grad()
def load(prepared: Prepared, file: Path) -> Report:
    """Give a module the weights that a trial came to; what was told of it at its end. Raises OSError."""
    moving = optimizing.trainable(prepared.module)
    with safe_open(str(file), "pt") as kept:
        for name, parameter in moving.items():
            parameter.copy_(kept.get_tensor(name))
        fields: dict[str, Any] = json.loads(kept.metadata()["report"])
    return Report(**fields)


def kept(folder: Path, step: int) -> bool:
    """Whether what a trial goes on from is whole."""
    return Checkpoints(folder, {}).has(step)

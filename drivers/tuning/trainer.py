"""The training loop: steps of micro-batches, evaluation, checkpoints.

It knows of no thread, device or engine: it gets a module, batches and a recipe, and calls `yield_` wherever somebody
else may have a turn. A run that was interrupted goes on from its newest checkpoint and ends with the same weights, to
the bit, as one that was not (on a CPU with the same number of threads).
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument, BadState

from .aids import backward_of
from .checkpoint import Saved
from .data.batches import Batch, steps_of
from .judging import Evaluated, Judging, Tally
from .optimizing import Optimizer, Schedule
from .randomness import Randomness
from .training import Due, Progress, Report, Training

_SKIPPED_AT_MOST = 8
"""Steps in a row whose gradients are not finite, before a run is given up."""


def train(job: Training, yield_: Callable[[], None] = lambda: None) -> Report:
    """Run a job to its end, from its newest checkpoint where there is one; the module then has the best weights known.

    These are the last ones, or with `early_stopping` those of the smallest held-out loss. What `yield_` raises ends
    the run at once; checkpoints that were written stay.

    Raises:
        BadArgument: nothing is trainable, or not in float32; nothing is to be learnt in a whole step.
        BadState: the checkpoint belongs to another run; gradients are not finite for many steps.
        OSError: a checkpoint cannot be written.
    """
    run = Run(job, yield_)
    with run.randomness:
        run.begin()
        while not run.over:
            run.advance()
        return run.finish()


@dataclass
class _Point:
    """Where a run is, apart from tensors; JSON in a checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0
    in_a_row: int = 0
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    best: float = math.inf
    best_step: int = 0
    without_gain: int = 0


class Run:
    """A run that whoever holds it leads step by step: `begin`, `advance` until it is `over`, `finish`.

    Each of these is called inside `with run.randomness:`, so that several runs can take turns in one process. Who
    makes passes for several runs at once calls `due` and `learned` for a step, and `held_out` and `judged` for an
    evaluation, in place of `advance`.
    """

    def __init__(self, job: Training, yield_: Callable[[], None] = lambda: None) -> None:
        self._job = job
        self._recipe = job.recipe
        self._optimizer = Optimizer(job.module, job.recipe)
        self._device = next(iter(self._optimizer.trainable.values())).device
        self._steps = steps_of(job.recipe, len(job.batches))
        self._schedule = Schedule(job.recipe, self._steps)
        self.randomness = Randomness(job.recipe.seed, self._device)
        self._yield = self.randomness.outside(yield_)
        self._judging = job.judge or job.objective
        self._backward = job.backward or backward_of(job.loss or job.objective.loss)
        self._at = _Point()
        self._training: bool | None = None
        self._best: dict[str, Tensor] = {}
        self._first: Evaluated | None = None
        self._last: Evaluated | None = None
        self._looked: dict[str, Mapping[str, Tensor]] = {}
        if job.mark is not None:
            job.mark(job.module, self._yield)
        per_epoch = max(1, math.ceil(len(job.batches) / job.recipe.accumulation))
        self._evaluate_every = job.recipe.evaluate_every or per_epoch
        self._checkpoint_every = job.recipe.checkpoint_every or per_epoch

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self._at.step

    @property
    def steps(self) -> int:
        """All there are to be."""
        return self._steps

    @property
    def tokens(self) -> int:
        """Learned from so far, without padding."""
        return self._at.tokens

    @property
    def over(self) -> bool:
        """Whether no step is left, or the held-out loss no longer falls."""
        return self._at.step >= self._steps or self._early

    @property
    def _early(self) -> bool:
        return 0 < self._recipe.early_stopping <= self._at.without_gain

    def begin(self, before: Mapping[str, float] | None = None) -> None:
        """Go on from the newest checkpoint; else `before` are the figures of a module that learned nothing, which is
        evaluated where nobody has them. Raises BadState."""
        self._resume()
        self._since = self._job.clock()
        self._began = (self._at.tokens, self._at.step, self._since)
        if not self._at.before:
            self._at.before = self._evaluate() if before is None else dict(before)
            self._first = self._last
            if before is None:
                figures, self._looked = self._look()
                self._at.before |= figures

    def advance(self) -> None:
        """One step, and what is due after it."""
        due = self.due()
        total = torch.zeros((), device=self._device)
        for batch in due.micro:
            total += self._backward(self._job.module, batch, due.weight).total
            self._yield()
        self.learned(due, total)
        if self.evaluates:
            self._judge(self._evaluate())
        if self._at.step % self._checkpoint_every == 0 or self._job.asked():
            self.save()

    def finish(self, judged: bool = False) -> Report:
        """The last evaluation, unless it was `judged` already; the module then has the weights that count."""
        early = self._at.step < self._steps and self._early
        if not early and not judged:
            self._judge(self._evaluate())
        self._take_best()
        figures, looked = self._look()
        self._at.after = self._at.after | figures
        if self._job.evaluated is not None and self._first is not None and self._last is not None:
            self._job.evaluated(self._first, self._last)
        self._count_seconds()
        at = self._at
        reason = "early" if early else "done"
        both = {name: (self._looked.get(name, {}), then) for name, then in looked.items()}
        best = at.best_step or at.step
        return Report(at.step, at.tokens, at.seconds, reason, at.before, at.after, best, at.skipped, both)

    def due(self) -> Due:
        """What the next step learns from. Raises BadArgument where that is nothing."""
        self._mode(training=True)
        begin, count = self._at.step * self._recipe.accumulation, self._recipe.accumulation
        objective, batches = self._job.objective, (self._job.batches[begin + n] for n in range(count))
        micro = [objective.prepare(batch, training=True).to(self._device) for batch in batches]
        weight = sum(objective.weight(batch) for batch in micro)
        if not weight:
            raise BadArgument(f"nothing is to be learnt in step {self._at.step + 1}", name="data", want="labels")
        return Due(micro, weight)

    def learned(self, due: Due, total: Tensor) -> None:
        """One update from the gradients that are there; `total` is the sum of losses they come from. Raises BadState
        where gradients have not been finite for many steps."""
        self._at.tokens += sum(batch.tokens for batch in due.micro)
        norm = self._optimizer.clip()
        rate = self._schedule.at(self._at.step)
        if math.isfinite(norm):
            self._optimizer.step(rate, self._yield)
            if self._job.companion is not None:
                self._job.companion.stepped(self._at.step)
            self._at.in_a_row = 0
        else:
            self._skip(norm)
        self._optimizer.clear()
        self._at.step += 1
        values = {"loss": float(total) / due.weight, "learning_rate": rate, "grad_norm": norm, **self._pace()}
        self._tell("train", values)

    @property
    def evaluates(self) -> bool:
        """Whether held-out rows are due now, between steps."""
        return self._at.step % self._evaluate_every == 0 and self._at.step < self._steps

    def _skip(self, norm: float) -> None:
        """An update with such gradients would leave no weight whole."""
        self._at.skipped += 1
        self._at.in_a_row += 1
        if self._at.in_a_row > _SKIPPED_AT_MOST:
            raise BadState(
                f"the norm of the gradients has been {norm} for {self._at.in_a_row} steps: take a smaller "
                f"learning_rate than {self._recipe.learning_rate:g}, or a warm-up", state="diverged",
            )  # fmt: skip

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """Figures of the held-out batches; nothing where there are none. Draws no random numbers from the run's."""
        states = self.randomness.states()
        tally = self.tally()
        for batch in self.held_out():
            tally.add(self._judging.loss(self._job.module, batch), batch)
            self._yield()
        self.randomness.restore(states)
        figures = tally.figures()
        if figures:
            self._last = tally.evaluated()
            self._tell("evaluate", figures)
        return figures

    @torch.no_grad()
    def _look(self) -> tuple[dict[str, float], dict[str, Mapping[str, Tensor]]]:
        """Figures of what is looked at beside held-out rows, and what they come from. Draws no random numbers from the
        run's."""
        states = self.randomness.states()
        figures: dict[str, float] = {}
        tensors: dict[str, Mapping[str, Tensor]] = {}
        for name, each in self._job.looks.items():
            self._mode(training=False)
            found = each.look(self._job.module, self._yield)
            figures |= found.figures
            tensors[name] = found.tensors
        self.randomness.restore(states)
        if figures:
            self._tell("evaluate", figures)
        return figures, tensors

    def held_out(self) -> Iterator[Batch]:
        """The batches of an evaluation, ready; the module no longer trains."""
        self._mode(training=False)
        return (self._judging.prepare(batch, training=False).to(self._device) for batch in self._job.held_out)

    def _mode(self, training: bool) -> None:
        """Have the module train, or not; a walk through all its parts, which is left out where nothing changes."""
        if self._training is not training:
            self._training = training
            self._job.module.train(training)

    def tally(self) -> Tally:
        """An evaluation that nothing was told to yet."""
        return Tally(self._judging, Judging(self._recipe.judged_as, self._job.labels))

    def judged(self, figures: dict[str, float]) -> None:
        """Take note of an evaluation that somebody else has made."""
        self._tell("evaluate", figures)
        self._judge(figures)

    def _judge(self, figures: dict[str, float]) -> None:
        """Whether an evaluation is the best so far."""
        self._at.after = figures
        if not self._recipe.early_stopping or not figures:
            return
        if figures["loss"] < self._at.best:
            self._at.best, self._at.best_step, self._at.without_gain = figures["loss"], self._at.step, 0
            self._best = {name: value.detach().clone() for name, value in self._optimizer.trainable.items()}
        else:
            self._at.without_gain += 1

    @torch.no_grad()
    def _take_best(self) -> None:
        if self._best and self._at.best_step != self._at.step:
            for name, value in self._best.items():
                self._optimizer.trainable[name].copy_(value)
            self._at.after = self._evaluate()

    def save(self) -> None:
        """Write a checkpoint, where they are kept. Raises OSError."""
        if self._job.checkpoints is None:
            return
        self._count_seconds()
        parts: dict[str, dict[str, Tensor]] = {
            "trainable": {name: value.detach() for name, value in self._optimizer.trainable.items()},
            "optimizer": self._optimizer.states(), "random": self.randomness.states(), "best": self._best,
            "companion": self._job.companion.states() if self._job.companion is not None else {},
            "first": self._first.tensors() if self._first is not None else {},
            "looked": {f"{look}/{name}": value for look, of in self._looked.items() for name, value in of.items()},
        }  # fmt: skip
        tensors = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        self._job.checkpoints.write(Saved(self._at.step, tensors, {**vars(self._at), "steps": self._steps}))
        self._tell("checkpoint", {})

    @torch.no_grad()
    def _resume(self) -> None:
        saved = self._job.checkpoints.newest() if self._job.checkpoints is not None else None
        if saved is None:
            return
        facts: dict[str, Any] = dict(saved.facts)
        if facts.pop("steps") != self._steps:
            raise BadState(f"the checkpoint belongs to a run of another length than {self._steps}", state="foreign")
        weights = saved.part("trainable")
        if weights.keys() != self._optimizer.trainable.keys():
            raise BadState("the checkpoint belongs to a model of other trainable weights", state="foreign")
        for name, parameter in self._optimizer.trainable.items():
            parameter.copy_(weights[name])
        self._optimizer.restore(saved.part("optimizer"))
        self.randomness.restore(saved.part("random"))
        if self._job.companion is not None:
            self._job.companion.restore(saved.part("companion"))
        self._best = {name: value.to(self._device) for name, value in saved.part("best").items()}
        first = saved.part("first")
        self._first = Evaluated.of(first, self._job.labels) if first else None
        self._looked = {name: saved.part(f"looked/{name}") for name in self._job.looks}
        self._at = _Point(**facts)

    def _count_seconds(self) -> None:
        now = self._job.clock()
        self._at.seconds += now - self._since
        self._since = now

    def _pace(self) -> dict[str, float]:
        """Tokens a second since this process took the run up, the seconds that are left at this pace, peak memory."""
        tokens, step, since = self._began
        taken = max(1e-9, self._job.clock() - since)
        left = (self._steps - self._at.step) * taken / (self._at.step - step)
        return {
            "tokens_per_s": (self._at.tokens - tokens) / taken, "left_s": left,
            "peak_bytes": float(peak_bytes(self._device)),
        }  # fmt: skip

    def _tell(self, stage: str, values: dict[str, float]) -> None:
        self._job.progress(Progress(self._at.step, self._steps, stage, values))


def peak_bytes(device: torch.device) -> int:
    """The most memory that was in use: of torch on a GPU, of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

"""Trials in one pass: the frozen base is gone through once with the rows of all of them.

A step of a small batch is mostly what each layer costs whatever the batch is: calls, and weights that are read. Here
trials share that. Each keeps its own adapters, optimizer, schedule, random numbers and evaluations (`trainer.Run`);
only the forward and the backward pass are common, through a view of the base that belongs to none of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.nn import functional

from llmos.syscalls.errors import BadArgument, BadState

from ...engine.loader import Bundle
from ..data import packing
from ..data.batches import Batch
from ..data.example import IGNORED
from ..objectives import chunked
from ..objectives.causal import Causal
from ..objectives.classes import Rows
from ..objectives.entropy import Entropy
from ..objectives.protocol import Objective, Outcome, inputs
from ..objectives.values import MultiLabel, Regression
from ..recipe import Recipe
from ..resident import training_view
from ..slices import mark
from ..training import Due
from .grouped import Each, Grouped, Pass, plain
from .trial import Trial

_METHODS = ("lora", "rslora", "qlora")
_OBJECTIVES = (Causal, Rows, MultiLabel, Regression)
"""Those that ask the model once for each batch."""

_ANY = frozenset({
    "method", "objective", "rank", "alpha", "dropout", "target_modules", "epochs", "max_steps", "batch_size",
    "learning_rate", "schedule", "warmup_ratio", "weight_decay", "max_length", "packing", "seed", "eval_fraction",
    "promote_if", "checkpoint_every", "accumulation", "clip", "label_smoothing", "evaluate_every", "early_stopping",
    "beta1", "beta2", "epsilon", "modules_to_save", "masked_share", "train_on", "long", "dedupe", "labels", "columns",
    "class_weights", "augment", "search",
})  # fmt: skip
"""Fields that may have any value; every other one has to be as it is by itself."""

Key = tuple[Any, ...]


def key_of(trial: Trial) -> Key | None:
    """Trials of the same key go through one pass; None for one that goes by itself."""
    recipe, module, objective = trial.prepared.recipe, trial.prepared.module, trial.prepared.objective
    odd = [each.name for each in dataclasses.fields(Recipe)
           if each.name not in _ANY and getattr(recipe, each.name) != each.default]  # fmt: skip
    if odd or recipe.method not in _METHODS or not isinstance(objective, _OBJECTIVES):
        return None
    on_cpu = next(module.parameters()).device.type == "cpu"
    if _chance(module) or (recipe.dropout and not on_cpu):
        return None
    return (type(objective), recipe.accumulation, tuple(_own(module)))


def _key(trial: Trial) -> Key:
    """The same, of its own for a trial that goes by itself."""
    key = key_of(trial)
    return (trial.told.number,) if key is None else key


def _own(module: Any) -> dict[str, Any]:
    """The layers of a trial's own, by their path in the base."""
    found: dict[str, Any] = {}
    for path, part in module.get_base_model().named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if isinstance(part, BaseTunerLayer | ModulesToSaveWrapper) and not inside:
            found[path] = part
    return found


def _chance(module: nn.Module) -> bool:
    """Whether the base itself draws random numbers: then whose they are would depend on who shares a pass."""
    for path, part in module.named_modules():
        if "lora_dropout" in path:
            continue
        shares = [part.p] if isinstance(part, nn.Dropout) else [
            value for name, value in vars(part).items() if "dropout" in name and isinstance(value, float)
        ]  # fmt: skip
        if any(shares):
            return True
    return False


class Stacks:
    """Has trials make a step: those that can in one pass, others one after another.

    Args:
        bundle: the model that serves.
        yield_: gives way to others; called between layers as well.
        clock: seconds of computing.
    """

    def __init__(self, bundle: Bundle, yield_: Callable[[], None], clock: Callable[[], float]) -> None:
        self._bundle, self._yield, self._clock = bundle, yield_, clock
        self._stacks: dict[Key, Stack] = {}
        self._keys: dict[int, Key] = {}
        """Of the trials of the last step, by number."""

    def __call__(self, trials: Sequence[Trial]) -> Mapping[int, Exception]:
        """What went wrong, by the number of the trial."""
        groups: dict[Key, list[Trial]] = {}
        self._keys = {trial.told.number: self._keys.get(trial.told.number) or _key(trial) for trial in trials}
        for trial in trials:
            groups.setdefault(self._keys[trial.told.number], []).append(trial)
        wrong: dict[int, Exception] = {}
        for key, group in groups.items():
            if len(group) == 1:
                wrong |= in_turn(group)
                continue
            if key not in self._stacks:
                self._stacks[key] = Stack(self._bundle, group[0], self._yield)
            began = self._clock()
            wrong |= self._stacks[key].advance(group)
            for trial in group:
                trial.told.seconds += (self._clock() - began) / len(group)
        return wrong


def in_turn(trials: Sequence[Trial]) -> Mapping[int, Exception]:
    """Each by itself, one after another; what went wrong, by number."""
    wrong: dict[int, Exception] = {}
    for trial in trials:
        try:
            trial.advance()
        except (BadState, BadArgument) as error:
            wrong[trial.told.number] = error
    return wrong


class Stack:
    """A view of the base through which the trials of one key go together. `like` is one of them."""

    def __init__(self, bundle: Bundle, like: Trial, yield_: Callable[[], None]) -> None:
        self.view: Any = training_view(bundle)
        self._under = Pass()
        self._training: bool | None = None
        self._known: dict[int, dict[str, Any]] = {}
        """Of each trial, its own layers by path."""
        for path, layer in _own(like.prepared.module).items():
            parent, _, name = path.rpartition(".")
            theirs = self.view.get_submodule(path)
            made = Grouped(theirs, self._under, path) if plain(layer) else Each(self._under, path)
            setattr(self.view.get_submodule(parent), name, made)
        self._yield = yield_
        mark(self.view, yield_)

    def advance(self, trials: Sequence[Trial]) -> Mapping[int, Exception]:
        """One step of each, with what is due after it; what went wrong, by number."""
        wrong: dict[int, Exception] = {}
        dues: list[tuple[Trial, Due]] = []
        for trial in trials:
            with _noted(wrong, trial), trial.run.randomness:
                dues.append((trial, trial.run.due()))
        totals = self._gradients(dues) if dues else []
        for (trial, due), total in zip(dues, totals, strict=True):
            with _noted(wrong, trial), trial.run.randomness:
                trial.run.learned(due, total)
        due_now = [trial for trial, _ in dues if trial.told.number not in wrong
                   and (trial.run.evaluates or trial.run.step >= trial.run.steps)]  # fmt: skip
        for count in {len(trial.prepared.held_out) for trial in due_now}:
            self._evaluate([trial for trial in due_now if len(trial.prepared.held_out) == count])
        for trial in due_now:
            if trial.run.over:
                with trial.run.randomness:
                    trial.report = trial.run.finish(judged=trial.run.step >= trial.run.steps)
        return wrong

    def _gradients(self, dues: Sequence[tuple[Trial, Due]]) -> list[Tensor]:
        """Gradients of all, and the sum of the losses of each."""
        trials = [trial for trial, _ in dues]
        self._mode(training=True)
        totals: list[Tensor] = [torch.zeros(()) for _ in dues]
        with self._going(trials, chance=True):
            for micro in zip(*(due.micro for _, due in dues), strict=True):
                outcomes = self._outcomes([trial.prepared.objective for trial in trials], micro)
                means = [each.total / due.weight for each, (_, due) in zip(outcomes, dues, strict=True)]
                torch.stack(means).sum().backward()  # type: ignore[no-untyped-call]
                totals = [total + each.total.detach() for total, each in zip(totals, outcomes, strict=True)]
                self._yield()
        return totals

    @torch.no_grad()
    def _evaluate(self, trials: Sequence[Trial]) -> None:
        self._mode(training=False)
        tallies = [trial.run.tally() for trial in trials]
        with self._going(trials):
            for batches in zip(*(trial.run.held_out() for trial in trials), strict=True):
                outcomes = self._outcomes([trial.judge for trial in trials], batches)
                for tally, outcome, batch in zip(tallies, outcomes, batches, strict=True):
                    tally.add(outcome, batch)
                self._yield()
        for trial, tally in zip(trials, tallies, strict=True):
            trial.run.judged(tally.figures())

    def _mode(self, training: bool) -> None:
        if self._training is not training:
            self._training = training
            self.view.train(training)

    @contextmanager
    def _going(self, trials: Sequence[Trial], chance: bool = False) -> Iterator[None]:
        """Their layers are what the view goes through; with `chance` from their own random numbers, which move on."""
        numbers = {trial.told.number for trial in trials}
        self._known = {number: own for number, own in self._known.items() if number in numbers}
        for trial in trials:
            if trial.told.number not in self._known:
                self._known[trial.told.number] = _own(trial.prepared.module)
        owns = [self._known[trial.told.number] for trial in trials]
        self._under.layers = {path: [own[path] for own in owns] for path in owns[0]}
        drawing = [trial for trial in trials if chance and trial.prepared.recipe.dropout]
        generators = {trial.told.number: torch.Generator() for trial in trials}
        for trial in drawing:
            generators[trial.told.number].set_state(trial.run.randomness.states()["cpu"])
        self._under.chance = list(generators.values())
        yield
        for trial in drawing:
            states = trial.run.randomness.states()
            trial.run.randomness.restore({**states, "cpu": generators[trial.told.number].get_state()})
        self._under.layers = {}

    def _outcomes(self, objectives: Sequence[Objective], batches: Sequence[Batch]) -> list[Outcome]:
        """What came of each batch, from one pass."""
        joined = join(batches)
        self._under.rows, self._under.lengths = zip(*(batch.input_ids.shape for batch in batches), strict=True)
        if all(isinstance(each, chunked.Chunked) for each in objectives):
            return self._chunked(objectives, batches, joined)
        more = {"use_cache": False} if isinstance(objectives[0], Causal) else {}
        logits = torch.split(self.view(**inputs(joined), **more).logits, list(self._under.rows))
        every = zip(objectives, logits, batches, strict=True)
        return [objective.loss(_Answer(part, batch), batch) for objective, part, batch in every]

    def _chunked(self, objectives: Sequence[Any], batches: Sequence[Batch], joined: Batch) -> list[Outcome]:
        """The head's part of all tokens as well, where all are judged alike."""
        head = self.view.get_output_embeddings()
        states = torch.split(chunked.before_head(self.view, head, joined), list(self._under.rows))
        targets = [batch.labels[:, 1:] for batch in batches]
        kept = [part[:, : each.shape[1]][each != IGNORED] for part, each in zip(states, targets, strict=True)]
        wanted = [each[each != IGNORED] for each in targets]
        alike = len({(each.smoothing, each.room) for each in objectives}) == 1
        parts = [(torch.cat(kept), torch.cat(wanted))] if alike else list(zip(kept, wanted, strict=True))
        judged = [
            chunked.losses_at(state, right, head, Entropy(each.smoothing, each.class_weights), each.room)
            for (state, right), each in zip(parts, objectives, strict=False)
        ]
        counts = [len(each) for each in wanted]
        losses, right = (torch.split(torch.cat(each), counts) for each in zip(*judged, strict=True))
        return [
            Outcome(loss.sum(), {"right": hit.sum(), "items": torch.tensor(hit.numel())})
            for loss, hit in zip(losses, right, strict=True)
        ]


class _Answer(nn.Module):
    """What the model said of a batch, for an objective that asks for it."""

    def __init__(self, logits: Tensor, batch: Batch) -> None:
        super().__init__()
        self._logits = logits[:, : batch.input_ids.shape[1]] if logits.ndim > 2 else logits

    def forward(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self._logits)


@contextmanager
def _noted(wrong: dict[int, Exception], trial: Trial) -> Iterator[None]:
    """What ends a trial alone is noted."""
    try:
        yield
    except (BadState, BadArgument) as error:
        wrong[trial.told.number] = error


def join(batches: Sequence[Batch]) -> Batch:
    """The rows of all batches, filled up to the longest; of batches without other texts."""
    length = max(batch.input_ids.shape[1] for batch in batches)

    def whole(tensors: Sequence[Tensor], filling: int) -> Tensor:
        return torch.cat([functional.pad(each, (0, length - each.shape[1]), value=filling) for each in tensors])

    documents = whole([batch.documents for batch in batches], packing.PADDING)
    labels = [batch.labels for batch in batches]
    by_token = all(batch.labels.shape == batch.input_ids.shape for batch in batches)
    kinds = [batch.kinds for batch in batches if batch.kinds is not None]
    return Batch(
        whole([batch.input_ids for batch in batches], 0), packing.positions_of(documents),
        whole(labels, IGNORED) if by_token else torch.cat(labels), documents, whole(kinds, 0) if kinds else None,
    )  # fmt: skip

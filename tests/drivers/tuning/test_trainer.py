"""The loop: what it computes is what plain PEFT and transformers compute; interrupted runs end alike."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import tuning_runs
from torch import Tensor, nn

from llmos.drivers.tuning.checkpoint import Checkpoints
from llmos.drivers.tuning.data.batches import Batch, Batches
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.objectives.protocol import Outcome
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.trainer import peak_bytes, train
from llmos.drivers.tuning.training import Progress, Report, Training
from llmos.syscalls.errors import BadArgument, BadState


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters() if value.requires_grad}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def job(recipe: Recipe, dropout: float = 0.0, **fields: Any) -> Training:
    module = tuning_runs.lora(tuning_runs.llama(), dropout)
    return Training(module, Causal(), recipe, fields.pop("batches", None) or tuning_runs.batches(recipe), **fields)


def losses_of(training: Training, yield_: Callable[[], None] = lambda: None) -> tuple[list[Progress], Report]:
    told: list[Progress] = []
    training.progress = told.append
    return told, train(training, yield_)


class Trainer(transformers.Trainer):
    """The library's own, given our batches in our order."""

    def __init__(self, given: Batches, count: int, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._given, self._batches = given, count

    def get_train_dataloader(self) -> Any:
        return [
            {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
            for batch in (self._given[n] for n in range(self._batches))
        ]


def plain(recipe: Recipe, given: Batches, folder: Path, module: nn.Module, steps: int) -> list[dict[str, float]]:
    """Losses and so on of transformers.Trainer, by step."""
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate, lr_scheduler_type=recipe.schedule, weight_decay=recipe.weight_decay,
        warmup_steps=math.ceil(recipe.warmup_ratio * steps), max_grad_norm=recipe.clip, logging_steps=1,
        report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, optim="adamw_torch",
    )  # fmt: skip
    trainer = Trainer(given, steps * recipe.accumulation, module, arguments)
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, of its own parts
        trainer.train()
    return [entry for entry in trainer.state.log_history if "grad_norm" in entry]


@pytest.mark.parametrize(
    "fields",
    [
        {"max_steps": 4, "schedule": "linear", "options": {"accumulation": 2, "clip": 0.05}},
        pytest.param(
            {"max_steps": 40, "schedule": "cosine", "warmup_ratio": 0.2, "weight_decay": 0.1}, marks=pytest.mark.slow
        ),
    ],
)
def test_losses_and_weights_are_those_of_the_library(fields: dict[str, Any], tmp_path: Path) -> None:
    recipe = tuning_runs.recipe(packing=False, **fields)
    training = job(recipe)
    library = copy.deepcopy(training.module)
    told, report = losses_of(training)
    steps = [entry for entry in told if entry.stage == "train"]
    theirs = plain(recipe, tuning_runs.batches(recipe), tmp_path, library, report.steps)
    assert report.steps == len(theirs) == len(steps) == recipe.max_steps
    assert [e.values["loss"] for e in steps] == pytest.approx([e["loss"] for e in theirs], rel=1e-5, abs=1e-4)
    assert [e.values["grad_norm"] for e in steps] == pytest.approx([e["grad_norm"] for e in theirs], rel=1e-4)
    assert [e.values["learning_rate"] for e in steps] == pytest.approx([e["learning_rate"] for e in theirs], rel=1e-12)
    for name, value in weights(library).items():
        torch.testing.assert_close(weights(training.module)[name], value, rtol=1e-4, atol=1e-5)


def test_packed_rows_learn_what_single_ones_do() -> None:
    """The same examples in few rows or in many give the same gradient: labels are weighted, not rows."""
    examples = tuning_runs.sentences(6)
    norms = []
    for fields in (
        {"packing": True, "batch_size": 6}, {"packing": False, "batch_size": 6},
        {"packing": False, "batch_size": 2, "options": {"accumulation": 3}},
    ):  # fmt: skip
        recipe = tuning_runs.recipe(max_steps=1, **fields)
        told, _ = losses_of(job(recipe, batches=tuning_runs.batches(recipe, examples)))
        norms.append((told[0].values["loss"], told[0].values["grad_norm"]))
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    assert norms[2] == pytest.approx(norms[0], rel=1e-4)


class Stop(Exception):
    """Somebody wants no more of it."""


def test_a_run_that_was_interrupted_anywhere_ends_with_the_same_bits(tmp_path: Path) -> None:
    fields = {"epochs": 2, "eval_fraction": 0.1, "checkpoint_every": 1, "dropout": 0.3}
    recipe = tuning_runs.recipe(**fields, options={"evaluate_every": 2, "early_stopping": 9, "accumulation": 2})
    held_out = tuple(Batches(tuning_runs.sentences(3, seed=5), recipe, shuffled=False))

    def started(store: Checkpoints | None) -> Training:
        return job(recipe, dropout=0.3, held_out=held_out, checkpoints=store)

    whole = started(None)
    told, report = losses_of(whole)
    assert report.steps >= 4
    for step in range(1, report.steps):
        store = Checkpoints(tmp_path / str(step), {"recipe": "one"})
        cut = started(store)
        count = 0

        def stops(entry: Progress, at: int = step) -> None:
            if entry.stage == "checkpoint" and entry.step == at:
                raise Stop

        cut.progress = stops
        with pytest.raises(Stop):
            train(cut)
        torch.manual_seed(count)  # whatever else happens in the process
        again = started(store)
        with torch.no_grad():
            for value in again.module.parameters():
                if value.requires_grad:
                    value.zero_()  # all that moves is in the checkpoint
        rest, ended = losses_of(again)
        assert equal(weights(again.module), weights(whole.module)), step
        assert ended.after == report.after and ended.before == report.before and ended.tokens == report.tokens
        assert [e.values["loss"] for e in rest if e.stage == "train"] == [
            e.values["loss"] for e in told if e.stage == "train" and e.step > step
        ]


class Counting:
    """Adds up the gradients' sizes, and moves a weight by what it knows."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.seen, self.steps = module, torch.zeros(()), list[int]()

    def stepped(self, step: int) -> None:
        parameters = [value for value in self.module.parameters() if value.grad is not None]
        assert parameters
        self.steps.append(step)
        with torch.no_grad():
            self.seen += sum(value.grad.abs().sum() for value in parameters if value.grad is not None)
            parameters[0].add_(self.seen, alpha=1e-3)

    def states(self) -> dict[str, Tensor]:
        return {"seen": self.seen}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        self.seen = states["seen"].clone()


def test_a_companion_sees_each_update_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    recipe = tuning_runs.recipe(max_steps=5, checkpoint_every=2)
    whole = job(recipe)
    whole.companion = counted = Counting(whole.module)
    train(whole)
    assert counted.steps == [0, 1, 2, 3, 4]

    def stops(entry: Progress) -> None:
        if entry.stage == "checkpoint":
            raise Stop

    cut = job(recipe, checkpoints=Checkpoints(tmp_path, {}), progress=stops)
    cut.companion = Counting(cut.module)
    with pytest.raises(Stop):
        train(cut)
    again = job(recipe, checkpoints=Checkpoints(tmp_path, {}))
    again.companion = resumed = Counting(again.module)
    train(again)
    assert resumed.steps == [2, 3, 4] and torch.equal(resumed.seen, counted.seen)
    assert equal(weights(again.module), weights(whole.module))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    recipe = tuning_runs.recipe(max_steps=2, checkpoint_every=1)
    store = Checkpoints(tmp_path, {"recipe": "one"})
    train(job(recipe, checkpoints=store))
    with pytest.raises(BadState, match="recipe"):
        train(job(recipe, checkpoints=Checkpoints(tmp_path, {"recipe": "two"})))
    with pytest.raises(BadState, match="length"):
        train(job(dataclasses.replace(recipe, max_steps=3), checkpoints=store))
    other = job(recipe, checkpoints=store)
    other.module = tuning_runs.lora(tuning_runs.llama(layers=1))
    with pytest.raises(BadState, match="trainable"):
        train(other)


def test_what_others_draw_in_between_changes_nothing_and_they_see_nothing_of_it() -> None:
    recipe = tuning_runs.recipe(max_steps=3, eval_fraction=0.1)
    held_out = tuple(tuning_runs.batches(recipe, tuning_runs.sentences(3)))
    alone, beside = job(recipe, dropout=0.5, held_out=held_out), job(recipe, dropout=0.5, held_out=held_out)
    train(alone)
    torch.manual_seed(77)
    drawn: list[float] = []
    train(beside, lambda: drawn.append(float(torch.rand(()))))
    assert equal(weights(alone.module), weights(beside.module))
    torch.manual_seed(77)
    assert drawn == [float(torch.rand(())) for _ in drawn]
    layers = 2
    assert len(drawn) == 2 * len(held_out) + 3 * (1 + layers)  # evaluations, micro-batches, groups of the optimizer


def test_layers_can_be_marked_to_let_others_in_between() -> None:
    recipe = tuning_runs.recipe(max_steps=1)
    calls: list[str] = []

    def mark(module: nn.Module, yield_: Callable[[], None]) -> None:
        for name, layer in module.named_modules():
            if name.endswith("self_attn"):
                layer.register_forward_hook(lambda *_: yield_())

    training = job(recipe, mark=mark, dropout=0.5)
    plainly = job(recipe, dropout=0.5)
    train(plainly)
    train(training, lambda: calls.append(str(torch.rand(()))))
    assert len(calls) == 2 + 1 + 2
    assert equal(weights(training.module), weights(plainly.module))


def test_the_loss_falls_and_the_held_out_one_too() -> None:
    options = {"evaluate_every": 20}
    recipe = tuning_runs.recipe(max_steps=40, learning_rate=0.05, eval_fraction=0.2, options=options)
    told, report = losses_of(job(recipe, held_out=tuple(tuning_runs.batches(recipe, tuning_runs.sentences(4, 9)))))
    assert report.after["loss"] < 0.9 * report.before["loss"]
    assert report.after["accuracy"] > report.before["accuracy"]
    assert report.after["perplexity"] == pytest.approx(math.exp(report.after["loss"]))
    evaluations = [entry for entry in told if entry.stage == "evaluate"]
    assert [entry.step for entry in evaluations] == [0, 20, 40]
    assert report.reason == "done" and report.skipped == 0 and report.best_step == 40


def test_an_evaluation_draws_nothing_and_changes_nothing() -> None:
    held_out = tuple(tuning_runs.batches(tuning_runs.recipe(), tuning_runs.sentences(4, 9)))
    ends = []
    for every in (1, 3):
        recipe = tuning_runs.recipe(max_steps=3, dropout=0.2, eval_fraction=0.1, options={"evaluate_every": every})
        training = job(recipe, dropout=0.2, held_out=held_out)
        train(training)
        ends.append(weights(training.module))
    assert equal(*ends)


class Worse(Causal):
    """Each evaluation after the third is worse than the one before."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "seen", [])

    def summary(self, sums: Any) -> dict[str, float]:
        seen: list[float] = self.__dict__["seen"]
        seen.append(abs(2 - len(seen)) + 1.0)
        return {"loss": seen[-1]}


def test_early_end_takes_the_best_weights() -> None:
    options = {"evaluate_every": 1, "early_stopping": 2}
    recipe = tuning_runs.recipe(max_steps=9, eval_fraction=0.1, schedule="constant", warmup_ratio=0.0, options=options)
    training = job(recipe, held_out=(tuning_runs.batches(recipe)[0],))
    training.objective = Worse()  # losses 3 before, then 2 1 2 3
    report = train(training)
    assert (report.reason, report.steps, report.best_step) == ("early", 4, 2)
    two = job(dataclasses.replace(recipe, max_steps=2))
    train(two)
    assert equal(weights(training.module), weights(two.module))


def test_progress_says_how_fast_and_how_long(tmp_path: Path) -> None:
    ticks: Iterator[int] = iter(range(0, 1000, 10))
    recipe = tuning_runs.recipe(max_steps=2)
    training = job(recipe, clock=lambda: float(next(ticks)), checkpoints=Checkpoints(tmp_path, {}))
    training.asked = lambda: True
    told, report = losses_of(training)
    assert [entry.stage for entry in told] == ["train", "checkpoint"] * 2
    first = told[0]
    assert (first.step, first.steps) == (1, 2)
    assert first.values["tokens_per_s"] == training.batches[0].tokens / 10 and first.values["left_s"] == 10
    assert first.values["peak_bytes"] == pytest.approx(peak_bytes(torch.device("cpu")), rel=0.2)
    assert report.seconds == 50 and report.tokens == sum(training.batches[n].tokens for n in range(2))


def test_gradients_that_are_not_finite_move_nothing_and_end_the_run() -> None:
    recipe = tuning_runs.recipe(max_steps=20)
    training = job(recipe)
    before = weights(training.module)
    objective = Causal()

    def loss(module: nn.Module, batch: Batch) -> Outcome:
        outcome = objective.loss(module, batch)
        return Outcome(outcome.total * math.inf, outcome.sums)

    training.loss = loss
    told: list[Progress] = []
    training.progress = told.append
    with pytest.raises(BadState, match="smaller learning_rate"):
        train(training)
    assert len(told) == 8
    assert equal(weights(training.module), before)


def test_a_step_without_labels_is_an_error() -> None:
    recipe = tuning_runs.recipe()
    given = tuning_runs.batches(recipe, tuning_runs.sentences(2))
    empty = [dataclasses.replace(given[0], labels=torch.full_like(given[0].labels, -100))]
    with pytest.raises(BadArgument, match="step 1"):
        train(job(recipe, batches=empty))

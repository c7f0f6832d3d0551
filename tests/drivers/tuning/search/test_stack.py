"""A trial in a pass with others has the losses and the weights that it has by itself, to rounding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from slow_cases import slow_but
from tiny_kinds import labels, text_model
from torch import Tensor

from llmos.drivers.contract import LoadSettings, TuneJob
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.table import OpTable
from llmos.drivers.tuning import optimizing
from llmos.drivers.tuning.data import packing
from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import IGNORED, Example
from llmos.drivers.tuning.search.preparing import PreparedSearch, prepare_search
from llmos.drivers.tuning.search.stack import Stack, Stacks, in_turn, join, key_of
from llmos.drivers.tuning.search.study import Told
from llmos.drivers.tuning.search.trial import Trial
from llmos.syscalls.errors import BadState

from .conftest import RECIPE, Prepare

VALUES: Sequence[Mapping[str, Any]] = (
    {"learning_rate": 1e-2, "rank": 2}, {"learning_rate": 3e-3, "rank": 8, "alpha": 4.0, "schedule": "linear"},
    {"learning_rate": 1e-3, "weight_decay": 0.1, "seed": 5}, {"options.label_smoothing": 0.1, "method": "rslora"},
)  # fmt: skip


def trials(prepared: PreparedSearch, values: Sequence[Mapping[str, Any]], start: int = 0) -> list[Trial]:
    made = []
    for number, each in enumerate(values, start):
        job = prepared.trial(number, each, lambda: None)
        trial = Trial(job, Told(number, each), prepared.judge(job), lambda: None, lambda: 0.0)
        with trial.run.randomness:
            trial.run.begin()
        made.append(trial)
    return made


def led(group: Sequence[Trial], advance: Any) -> list[list[float]]:
    """To their ends; the losses of each step."""
    losses: list[list[float]] = [[] for _ in group]
    while any(trial.report is None for trial in group):
        assert not advance([trial for trial in group if trial.report is None])
        for trial, seen in zip(group, losses, strict=True):
            seen.append(trial.seen.values["loss"])
    return losses


def moved(trial: Trial) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in optimizing.trainable(trial.prepared.module).items()}


def same(prepared: PreparedSearch, values: Sequence[Mapping[str, Any]], together: bool = True) -> None:
    """Whether trials come to the same in one pass and each by itself; `together`: they do share passes."""
    alone, mine = trials(prepared, values), trials(prepared, values)
    stacks = Stacks(prepared.resident.bundle, lambda: None, lambda: 0.0)
    wanted, found = led(alone, in_turn), led(mine, stacks)
    assert bool(stacks._stacks) == together
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=2e-5, atol=1e-5)
    for one, other in zip(mine, alone, strict=True):
        assert one.report is not None and other.report is not None
        assert one.report.after.keys() == other.report.after.keys() and one.report.steps == other.report.steps
        assert one.report.after["loss"] == pytest.approx(other.report.after["loss"], rel=2e-5)
        assert one.report.tokens == other.report.tokens and one.report.reason == other.report.reason
        weights, theirs = moved(one), moved(other)
        for name, value in weights.items():  # AdamW divides by what may be as small as rounding
            apart = (value - theirs[name]).norm() / theirs[name].norm().clamp_min(1e-6)
            assert apart < 1e-3, (name, float(apart))


def test_trials_in_one_pass_are_as_they_are_alone(prepare: Prepare) -> None:
    same(prepare(), VALUES)


def test_dropout_is_each_trials_own(prepare: Prepare) -> None:
    same(prepare(), [{"dropout": 0.2, "rank": 2}, {"dropout": 0.0}, {"dropout": 0.1, "seed": 3}])


@pytest.mark.parametrize(
    "fields",
    slow_but([{"packing": False}], [{"options": {"accumulation": 2}}, {"packing": False}, {"batch_size": 3}]),
)
def test_batches_of_any_shape(prepare: Prepare, fields: dict[str, Any]) -> None:
    same(prepare(**fields), VALUES[:3])


def test_trials_of_other_batches_and_ends(prepare: Prepare) -> None:
    """Each has as many rows, steps and evaluations as it would have alone; one stops early."""
    early = {"options.early_stopping": 1, "learning_rate": 1.0, "eval_fraction": 0.2}
    same(prepare(), [{"batch_size": 2}, {"batch_size": 4, "max_steps": 5}, {"packing": False}, early])


@pytest.mark.parametrize("chance", slow_but([0.1], [0.0, 0.1]))
def test_classes_and_their_heads(ops: OpTable, tmp_path: Path, chance: float) -> None:
    """A head of its own moves in each trial. A model that draws random numbers itself has no pass in common."""
    drops = {"hidden_dropout_prob": chance, "attention_probs_dropout_prob": 0.0}
    folder = text_model(tmp_path / "m", "BertForSequenceClassification", **labels("bad", "good"), **drops)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(folder), LoadSettings(dtype="float32"), tiny_models.silent)
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"text": f"the {'fox' if n % 2 else 'dog'} {n}", "label": "good" if n % 2 else "bad"} for n in range(40)]
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        **RECIPE, "objective": "classification", "target_modules": ["query", "value"],
        "search": {"space": {"rank": [2, 4]}, "trials": 2},
    }  # fmt: skip
    job = TuneJob("t1", "m", recipe, tiny_models.source_of(data), tmp_path / "out", tmp_path / "keep")
    prepared = prepare_search(job, engine.base("m"))
    assert "classifier" in " ".join(optimizing.trainable(prepared.trial(99, {}, lambda: None).module))
    same(prepared, [{"rank": 2}, {"rank": 4, "learning_rate": 1e-2}], together=not chance)


@pytest.mark.parametrize(
    "values",
    slow_but([{"method": "dora"}], [{"method": "dora"}, {"method": "ia3"}, {"options.gradient_checkpointing": True}]),
)
def test_what_goes_by_itself(prepare: Prepare, values: dict[str, Any]) -> None:
    (alone, other), (plain,) = trials(prepare(), [values, values]), trials(prepare("two"), [{}])
    assert key_of(alone) is None and key_of(plain) is not None
    assert key_of(plain) != key_of(trials(prepare("three"), [{"target_modules": ["q_proj"]}])[0])
    stacks = Stacks(prepare("four").resident.bundle, lambda: None, lambda: 0.0)
    assert not stacks([alone, other]) and not stacks._stacks and alone.run.step == 1


def test_a_trial_that_fails_leaves_the_others(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare()
    first, second = trials(prepared, VALUES[:2])
    stack = Stack(prepared.resident.bundle, first, lambda: None)

    def diverged(*_: Any) -> None:
        raise BadState("not finite", state="diverged")

    monkeypatch.setattr(first.run, "learned", diverged)
    wrong = stack.advance([first, second])
    assert list(wrong) == [0] and second.run.step == 1
    (alone,) = trials(prepared, VALUES[1:2], start=1)
    alone.advance()
    for name, value in moved(second).items():
        torch.testing.assert_close(value, moved(alone)[name], rtol=1e-4, atol=1e-5)


def test_requests_get_a_turn_inside_of_a_pass(prepare: Prepare) -> None:
    prepared, turns = prepare(), [0]

    def turn() -> None:
        turns[0] += 1

    group = trials(prepared, VALUES[:2])
    Stack(prepared.resident.bundle, group[0], turn).advance(group)
    assert turns[0] > 40


def test_rows_of_several_batches() -> None:
    one = collate([[Example([3, 4, 5], [3, 4, 5])], [Example([6], [6])]])
    two = collate([[Example([7, 8, 9], [7, 8, 9]), Example([3, 4], [3, 4])]])
    whole: Batch = join([one, two])
    assert whole.input_ids.shape == (3, 5) and whole.packed and whole.tokens == one.tokens + two.tokens
    assert whole.documents[1].tolist() == [0] + [packing.PADDING] * 4
    assert whole.labels[0].tolist()[3:] == [IGNORED] * 2 and whole.labels[2].tolist() == two.labels[0].tolist()
    assert whole.position_ids[2].tolist() == two.position_ids[0].tolist() and whole.kinds is None
    classes = collate([[Example([3, 4], (1,), whole=True)], [Example([5], (0,), whole=True)]])
    assert join([classes, classes]).labels.tolist() == [1, 0, 1, 0]

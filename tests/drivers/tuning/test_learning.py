"""What is tuned does better than before, by more than chance explains; from labels that mean nothing, it does not.

Tasks and verdicts are those of `learning_tasks`.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from learning_tasks import (
    COUNT, Task, UNSAID, any_first, by_method, choices, counter, counting, encoder, learns, marked, mixed_up,
    near, preferred, runs, surely, swapped, t5, tagged, told, written,
)  # fmt: skip

from llmos.drivers.engine import kinds
from llmos.drivers.tuning.objectives.answers import Answers
from llmos.drivers.tuning.objectives.choices import Choices
from llmos.drivers.tuning.objectives.chunked import Chunked
from llmos.drivers.tuning.objectives.classes import Masked, Rows, Tokens
from llmos.drivers.tuning.objectives.distillation import Distillation
from llmos.drivers.tuning.objectives.embedding import Embedding, Triplet
from llmos.drivers.tuning.objectives.preference import Preference
from llmos.drivers.tuning.objectives.seq2seq import Seq2seq
from llmos.drivers.tuning.objectives.values import MultiLabel, Regression

METHODS = [
    by_method("lora", 1e-2), by_method("rslora", 1e-2), by_method("dora", 1e-2), by_method("adalora", 2e-2),
    by_method("ia3", 5e-2), by_method("prompt", 1e-1, fields={"options": {"virtual_tokens": 4}}),
    by_method("prefix", 1e-1, fields={"options": {"virtual_tokens": 4}}),
    by_method("p-tuning", 1e-2, fields={"options": {"virtual_tokens": 4}}),
    by_method("bottleneck", 1e-2), by_method("full", 3e-3), by_method("last-layers", 1e-2),
    Task(
        Rows(), kinds.SEQUENCE, encoder("ForSequenceClassification"), told(lambda row: [row[0] % 2]), without=0.5,
        method="bitfit", rate=5e-2, steps=250,
    ),
]  # fmt: skip

OBJECTIVES = [
    Task(Chunked(room=100), kinds.CAUSAL, counter, counting((UNSAID,), 5), without=1 / 3),
    Task(Rows(), kinds.SEQUENCE, encoder("ForSequenceClassification"), told(lambda row: [row[0] % 2]), without=0.5),
    Task(
        MultiLabel(), kinds.SEQUENCE, encoder("ForSequenceClassification"),
        told(lambda row: [float(row[0] % 2), float(row[0] < 9)]), without=0.5,
    ),
    Task(
        Regression(), kinds.SEQUENCE, encoder("ForSequenceClassification", 1),
        told(lambda row: [(row[0] - 8.5) / 5]), figure="mean_absolute_error", without=-0.9,
    ),
    Task(Tokens(), kinds.TOKEN, encoder("ForTokenClassification", 3), tagged, without=1 / 3),
    Task(Answers(), kinds.QUESTION, encoder("ForQuestionAnswering"), marked, figure="exact_match", without=1 / 5),
    Task(Masked(mask=1, vocabulary=24, share=0.2), kinds.MASKED, encoder("ForMaskedLM"), runs, without=1 / COUNT),
    Task(Seq2seq(), kinds.SEQ2SEQ, t5, written, without=1 / COUNT),
    Task(Embedding(), kinds.ENCODER, encoder("Model"), near(1), without=1 / 8),
    Task(Triplet(), kinds.ENCODER, encoder("Model"), near(2), without=0.5),
    Task(Preference(), kinds.CAUSAL, counter, preferred, without=0.5, mix=swapped),
    Task(Choices(), kinds.CAUSAL, counter, choices, without=1 / 3, mix=any_first),
]  # fmt: skip

AIDS: dict[str, dict[str, Any]] = {
    "bf16": {"options": {"mixed_precision": "bf16"}}, "r_drop": {"dropout": 0.1, "options": {"r_drop": 1.0}},
    "fgm": {"options": {"adversarial": {"method": "fgm", "size": 0.1}}},
    "pgd": {"options": {"adversarial": {"method": "pgd", "size": 0.1, "pace": 0.05}}},
}  # fmt: skip


def test_one_method_learns_one_objective() -> None:
    learns(dataclasses.replace(OBJECTIVES[1], steps=60), 0)


def name_of(task: Task) -> str:
    return f"{task.method}-{type(task.objective).__name__}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", [*METHODS, *OBJECTIVES], ids=name_of)
def test_each_method_and_each_objective_learns_what_can_be_learnt_and_nothing_else(task: Task, seed: int) -> None:
    learns(task, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("aid", AIDS)
def test_with_each_aid_too(aid: str, seed: int) -> None:
    learns(dataclasses.replace(OBJECTIVES[1], fields=tuple(AIDS[aid].items())), seed)


@pytest.mark.slow
def test_a_teacher_teaches_what_labels_do_not() -> None:
    """Labels mean nothing, the teacher counts by 5: what it says is learnt."""
    generator = torch.Generator().manual_seed(0)
    task = by_method("lora", 1e-2)
    examples, held_out = task.make(600, generator), task.make(400, generator)
    _, teacher = task.tuned(examples, 0)
    above = copy.deepcopy(teacher).eval().requires_grad_(False)
    pupil = dataclasses.replace(task, objective=Distillation(task.objective, teacher=above, share=0.9))
    _, after = pupil.tuned(mixed_up(examples, generator), 1)
    gains = task.figures(after, held_out) - 1 / 3
    print(f"{1 / 3 + gains.mean():.3f}")
    assert surely(gains)

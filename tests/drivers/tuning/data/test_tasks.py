"""The data of several tasks: each by itself, with classes of its own, and all together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.dataset import Dataset
from llmos.drivers.tuning.data.reading import read
from llmos.syscalls.errors import BadArgument, BadModel
from training_data import base, jsonl, located, recipe

MOOD = [{"text": f"words {n}", "label": "good" if n % 2 else "bad"} for n in range(12)]
TOPIC = [{"text": f"words {n}", "label": ("art", "good", "war")[n % 3]} for n in range(9)]
SCORE = [{"text": f"words {n}", "score": n / 4} for n in range(8)]
FILES = {"mood.jsonl": jsonl(MOOD), "topic.jsonl": jsonl(TOPIC), "score.jsonl": jsonl(SCORE)}
TASKS: dict[str, Any] = {
    "mood": {"files": ["mood*"]}, "topic": {"files": ["topic*"]},
    "score": {"files": ["score*"], "objective": "regression"},
}  # fmt: skip
SIX = tuple(f"LABEL_{n}" for n in range(6))


def made(folder: Path, labels: tuple[str, ...] = SIX, files: dict[str, str] = FILES, kind: Any = kinds.SEQUENCE,
         tasks: dict[str, Any] = TASKS, **fields: Any) -> Dataset:  # fmt: skip
    asked = recipe("classification", options={"tasks": tasks}, **fields)
    return read("/data", located(folder, files), asked, base(kind=kind, labels=labels))


def test_each_task_has_its_rows_and_its_classes(tmp_path: Path) -> None:
    data = made(tmp_path)
    assert {name: (len(own.train), own.labels) for name, own in data.tasks.items()} == {
        "mood": (12, ("bad", "good")), "topic": (9, ("art", "good", "war")), "score": (8, ()),
    }  # fmt: skip
    assert data.labels == ("mood/bad", "mood/good", "topic/art", "topic/good", "topic/war", "score/score")
    assert len(data.train) == 29 and data.facts["tasks"]["topic"]["schema"] == "label"
    assert [own.train[1].labels for own in data.tasks.values()] == [(1,), (1,), (0.25,)]
    assert data.digest not in {own.digest for own in data.tasks.values()}


def test_a_head_that_was_learned_before_says_which_class_is_which(tmp_path: Path) -> None:
    labels = ("mood/good", "mood/bad", "topic/war", "topic/art", "topic/good", "score/score")
    data = made(tmp_path, labels)
    assert data.tasks["mood"].labels == ("good", "bad") and data.labels == labels
    assert data.tasks["mood"].train[1].labels == (0,)


def test_outputs_that_nobody_needs_are_called_so(tmp_path: Path) -> None:
    assert made(tmp_path, (*SIX, "LABEL_6")).labels[-1] == "unused/0"


def test_a_base_without_classes_has_none(tmp_path: Path) -> None:
    better = {"prompt": "p", "chosen": "c", "rejected": "r"}
    files = {"a.jsonl": jsonl([{"text": "some words"}]), "b.jsonl": jsonl([better])}
    tasks = {"a": {"files": ["a*"], "objective": "causal-lm"}, "b": {"files": ["b*"], "objective": "preference"}}
    data = made(tmp_path, (), files, kinds.CAUSAL, tasks)
    assert data.labels == () and len(data.train) == 2


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"labels": SIX[:5]}, BadArgument, "tasks need 6 outputs, the head of tiny has 5"),
        ({"files": {**FILES, "more.jsonl": "{}"}}, BadArgument, r"/data: more\.jsonl belongs to no task"),
        ({"kind": kinds.CAUSAL, "labels": ()}, BadModel, "classification needs a"),
        ({"tasks": {**TASKS, "mood": {"files": ["moody*"]}}}, BadArgument, "mood: no file of /data is named 'moody"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, change: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        made(tmp_path, **change)

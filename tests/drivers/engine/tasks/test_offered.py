"""Each kind of model offers its tasks, its own one first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_kinds import labels, load, ops, pair_tokenizer, text_model

from llmos.drivers.engine.tasks.offered import offered

TASKS: dict[str, list[str]] = {
    "BertModel": ["feature-extraction"], "BertForMaskedLM": ["fill-mask", "feature-extraction"],
    "BertForTokenClassification": ["token-classification"], "BertForQuestionAnswering": ["question-answering"],
    "BertForSequenceClassification": ["text-classification"],
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_each_kind_of_text_model_has_its_tasks(tmp_path: Path, name: str) -> None:
    with torch.inference_mode():
        found = offered(load(text_model(tmp_path, name)), ops())
    assert [task.name for task in found] == TASKS[name]
    assert all(task.batch_tokens > 0 and all(task.options.values()) for task in found)


@pytest.mark.parametrize(
    ("names", "tasks"),
    [
        (("no", "entailment"), ["text-classification", "zero-shot-classification"]),
        (("relevant",), ["text-classification", "rerank"]),
    ],
)
def test_labels_tell_what_a_classifier_can_do(tmp_path: Path, names: Any, tasks: list[str]) -> None:
    with torch.inference_mode():
        found = offered(load(text_model(tmp_path, "BertForSequenceClassification", **labels(*names))), ops())
    assert [task.name for task in found] == tasks


def test_without_a_mask_nothing_is_filled_in(tmp_path: Path) -> None:
    folder = text_model(tmp_path, "BertForMaskedLM", tokenizer=pair_tokenizer(mask_token=None))
    with torch.inference_mode():
        assert [task.name for task in offered(load(folder), ops())] == ["feature-extraction"]

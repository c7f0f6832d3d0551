"""Logits to labels."""

from __future__ import annotations

import pytest
import torch
import transformers

from llmos.drivers.engine.tasks.labels import OPTIONS, LabelChooser, function_of, scored
from llmos.drivers.engine.tasks.options import Options
from llmos.syscalls.errors import BadArgument

LOGITS = torch.tensor([0.5, 2.0, -1.0])


def config(labels: int = 3, problem: str | None = None) -> transformers.BertConfig:
    return transformers.BertConfig(num_labels=labels, problem_type=problem)


def test_the_function_follows_from_the_configuration() -> None:
    assert function_of(config(), True) == "softmax"
    assert function_of(config(1), True) == "sigmoid"
    assert function_of(config(1), False) == "softmax"
    assert function_of(config(3, "multi_label_classification"), False) == "sigmoid"
    assert function_of(config(1, "regression"), True) == "none"


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_the_best_labels_come_first(function: str) -> None:
    chooser = LabelChooser(config(), Options("t", OPTIONS, {"top_k": 2, "function": function}))
    found = [(each.label, each.score) for each in chooser.choose(LOGITS).labels]
    expected = scored(LOGITS, function)
    assert found == [("LABEL_1", pytest.approx(float(expected[1]))), ("LABEL_0", pytest.approx(float(expected[0])))]


def test_no_more_labels_than_there_are() -> None:
    for count in (0, 3, 99):
        chooser = LabelChooser(config(), Options("t", OPTIONS, {"top_k": count}))
        assert len(chooser.choose(LOGITS).labels) == 3


def named() -> transformers.BertConfig:
    return transformers.BertConfig(id2label={0: "mood/bad", 1: "mood/good", 2: "topic/art"}, num_labels=3)


@pytest.mark.parametrize(
    ("among", "places"), [(["mood/"], [0, 1]), (["topic/art", "mood/bad"], [0, 2]), (["topic/"], [2]), ([], [0, 1, 2])]
)
def test_labels_may_be_chosen_among_some(among: list[str], places: list[int]) -> None:
    chooser = LabelChooser(named(), Options("t", OPTIONS, {"among": among}))
    found = {each.label: each.score for each in chooser.choose(LOGITS).labels}
    wanted = LOGITS[places].softmax(0)
    assert found == {named().id2label[n]: pytest.approx(float(wanted[at])) for at, n in enumerate(places)}


def test_a_label_that_there_is_not_is_refused() -> None:
    with pytest.raises(BadArgument, match="no label is 'mood'; labels are mood/bad, mood/good, topic/art"):
        LabelChooser(named(), Options("t", OPTIONS, {"among": ["mood"]}))

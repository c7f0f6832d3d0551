"""Held-out batches are judged as a whole, by what a real module says of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import tuning_runs
from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import IGNORED, Example
from llmos.drivers.tuning.judging import Evaluated, Judging, Tally
from llmos.drivers.tuning.metrics import spans
from llmos.drivers.tuning.objectives.answers import Answers
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.objectives.choices import Choices
from llmos.drivers.tuning.objectives.classes import Rows, Tokens
from llmos.drivers.tuning.objectives.embedding import Embedding
from llmos.drivers.tuning.objectives.preference import Preference
from llmos.drivers.tuning.objectives.protocol import Objective
from llmos.drivers.tuning.objectives.values import MultiLabel, Regression
from llmos.drivers.tuning.trainer import train
from llmos.drivers.tuning.training import Training

TAGS = ("O", "B-X", "I-X")
TEXTS = tuning_runs.sentences(12)


def whole(labels: Callable[[int], tuple[float, ...]]) -> list[Example]:
    return [Example(each.tokens, labels(n), whole=True) for n, each in enumerate(TEXTS)]


def batches(examples: list[Example], size: int) -> list[Batch]:
    return [collate([[each] for each in examples[n : n + size]]) for n in range(0, len(examples), size)]


def tagged() -> list[Example]:
    return [Example(each.tokens, [IGNORED, *(token % 3 for token in each.tokens[1:])], aligned=True) for each in TEXTS]


def near() -> list[Example]:
    """Each text is to be found by itself, without its last token."""
    rows = whole(lambda _: (0,))
    return [dataclasses.replace(row, others=(Example(row.tokens[:-1], (0,), whole=True),)) for row in rows]


CASES: list[tuple[str, Objective, str, list[Example], set[str]]] = [
    ("classification", Rows(), "ForSequenceClassification", whole(lambda n: (n % 3,)),
     {"accuracy", "precision_macro", "recall_macro", "f1_macro", "roc_auc"}),
    ("multi-label", MultiLabel(), "ForSequenceClassification", whole(lambda n: (float(n % 2), 1.0, float(n % 3 == 0))),
     {"exact_match", "f1_micro", "f1_macro", "roc_auc", "precision_micro", "precision_macro", "recall_micro",
      "recall_macro"}),
    ("regression", Regression(), "ForSequenceClassification", whole(lambda n: (n / 2,)),
     {"mse", "mae", "r2", "pearson", "spearman"}),
    ("token-classification", Tokens(), "ForTokenClassification", tagged(),
     {"accuracy", "precision_macro", "recall_macro", "f1_macro", "entity_f1", "entity_f1_macro", "entity_precision",
      "entity_recall"}),
    ("question-answering", Answers(), "ForQuestionAnswering", whole(lambda n: (n % 3, n % 3 + 1)),
     {"exact_match", "f1"}),
]  # fmt: skip


def judged(objective: str, by: Objective, module: Any, given: list[Batch]) -> Judging:
    judging = Judging(objective, TAGS)
    with torch.no_grad():
        for batch in given:
            judging.add(by.loss(module.eval(), batch), batch)
    return judging


@pytest.mark.parametrize(("objective", "by", "head", "examples", "names"), CASES, ids=[case[0] for case in CASES])
def test_figures_are_of_all_batches_together(
    objective: str, by: Objective, head: str, examples: list[Example], names: set[str]
) -> None:
    """However rows are divided into batches; means of batches would differ."""
    outputs = {} if objective == "question-answering" else {"num_labels": 1 if objective == "regression" else 3}
    module = tuning_runs.bert(head, **outputs)
    one, two, odd = (judged(objective, by, module, batches(examples, size)) for size in (12, 6, 5))
    assert set(one.figures()) == names
    for other in (two, odd):
        assert other.figures() == pytest.approx(one.figures(), abs=1e-5)
    # rows are told apart over batches, too: an interval draws them whole
    assert one.gathered().rows.tolist() == two.gathered().rows.tolist() == odd.gathered().rows.tolist()
    assert len(one.gathered().rows.unique()) == 12


def test_entities_are_those_of_each_text() -> None:
    examples = tagged()
    module = tuning_runs.bert("ForTokenClassification", num_labels=3)
    found = judged("token-classification", Tokens(), module, batches(examples, 5)).figures()
    said, wanted = [], []
    for example in examples:
        with torch.no_grad():
            best = module(input_ids=torch.tensor([example.tokens])).logits[0].argmax(-1).tolist()
        said.append([TAGS[tag] for tag in best[1:]])
        wanted.append([TAGS[int(label)] for label in example.labels[1:]])
    assert found["entity_f1"] == pytest.approx(spans.entities(said, wanted)["entity_f1"])


def test_without_names_tags_are_plain_classes() -> None:
    module = tuning_runs.bert("ForTokenClassification", num_labels=3)
    judging = Judging("token-classification")
    batch = batches(tagged(), 12)[0]
    judging.add(Tokens().loss(module, batch), batch)
    assert {"accuracy", "f1_macro"} <= set(judging.figures()) and "entity_f1" not in judging.figures()


def test_outputs_that_no_label_is_for_have_a_number() -> None:
    module = tuning_runs.bert("ForTokenClassification", num_labels=5)
    judging = judged("token-classification", Tokens(), module, batches(tagged(), 12))
    assert judging.gathered().names == (*TAGS, "3", "4") and judging.figures()


def test_texts_are_found_among_those_of_their_batch() -> None:
    module = tuning_runs.bert("Model")
    judging = judged("embedding", Embedding(), module, batches(near(), 5))
    assert judging.gathered().rows.tolist() == list(range(12))
    assert set(judging.figures()) == {"mrr", "recall_at_1", "recall_at_5", "recall_at_10"}
    assert judging.gathered().said.max() <= 5 and judging.figures()["recall_at_5"] == 1.0


def test_margins_of_preferences() -> None:
    module = tuning_runs.lora(tuning_runs.llama(), init_lora_weights=False)
    rows = [dataclasses.replace(each, others=(TEXTS[n - 1],)) for n, each in enumerate(TEXTS)]
    judging = judged("preference", Preference(beta=1.0), module, batches(rows, 5))
    said = judging.gathered().said
    assert len(said) == 12 and bool((said != 0).any())
    assert judging.figures()["accuracy"] == pytest.approx(float((said > 0).float().mean()))
    assert judging.figures()["margin"] == pytest.approx(float(said.mean()))


def test_margins_of_choices_are_over_the_best_of_the_others() -> None:
    module = tuning_runs.llama()
    rows = [dataclasses.replace(each, others=(TEXTS[n - 1], TEXTS[n - 2])) for n, each in enumerate(TEXTS)]
    judging = judged("multiple-choice", Choices(), module, batches(rows, 5))
    with torch.no_grad():
        scores = Choices().loss(module, batches(rows, 12)[0]).scores
    assert scores is not None
    torch.testing.assert_close(judging.gathered().said, scores[:, 0] - torch.maximum(scores[:, 1], scores[:, 2]))
    assert judging.figures()["accuracy"] == pytest.approx(float((scores.argmax(1) == 0).float().mean()))


def test_of_tokens_nothing_is_gathered() -> None:
    """Their figures come from sums; scores of every token would fill the memory."""
    judging = judged("causal-lm", Causal(), tuning_runs.llama(), batches(TEXTS, 5))
    assert judging.figures() == {} and not len(judging.gathered().said)


def test_a_run_tells_them_before_and_after() -> None:
    made = tuning_runs.recipe(objective="classification", max_steps=2)
    examples = whole(lambda n: (n % 3,))
    module = tuning_runs.bert("ForSequenceClassification", num_labels=3)
    held_out = batches(examples, 5)
    untrained = judged("classification", Rows(), module, held_out).figures()
    report = train(Training(module, Rows(), made, tuning_runs.batches(made, examples), held_out))
    trained = judged("classification", Rows(), module, held_out).figures()
    assert {name: report.before[name] for name in untrained} == pytest.approx(untrained)
    assert {name: report.after[name] for name in trained} == pytest.approx(trained)
    assert report.after["loss"] > 0


@pytest.mark.parametrize("names", [TAGS, ()])
def test_an_evaluation_comes_back_from_its_tensors(names: tuple[str, ...]) -> None:
    module = tuning_runs.bert("ForTokenClassification", num_labels=5)
    tally = Tally(Tokens(), Judging("token-classification", names))
    with torch.no_grad():
        for batch in batches(tagged(), 5):
            tally.add(Tokens().loss(module.eval(), batch), batch)
    whole = tally.evaluated()
    again = Evaluated.of(whole.tensors(), names)
    assert again.gathered.names == whole.gathered.names == ((*TAGS, "3", "4") if names else ())
    assert again.tensors().keys() == whole.tensors().keys()
    for name, value in whole.tensors().items():
        assert torch.equal(again.tensors()[name], value)
    assert len(whole.sums["loss"]) == 3
    assert tally.figures()["loss"] == pytest.approx(float(whole.sums["loss"].sum() / whole.sums["weight"].sum()))


def test_an_evaluation_of_tokens_is_sums_alone() -> None:
    tally = Tally(Causal(), Judging("causal-lm"))
    batch = batches(TEXTS, 12)[0]
    with torch.no_grad():
        tally.add(Causal().loss(tuning_runs.llama(), batch), batch)
    again = Evaluated.of(tally.evaluated().tensors(), ())
    assert not len(again.gathered.said) and set(again.sums) == set(tally.evaluated().sums)

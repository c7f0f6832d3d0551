"""Classes of rows and of tokens, and hidden tokens: the library's own losses; what is hidden is drawn as BERT did."""

from __future__ import annotations

import dataclasses
from typing import Any

import peft
import pytest
import torch
import transformers
import tuning_runs

from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.classes import Masked, Rows, Tokens

MASK = 23


def rows(labels: list[int]) -> Batch:
    texts = tuning_runs.sentences(len(labels))
    return collate([[Example(each.tokens, (label,), whole=True)] for each, label in zip(texts, labels, strict=True)])


def test_classes_of_rows_are_the_librarys() -> None:
    batch = rows([0, 2, 1, 1])
    module = tuning_runs.bert("ForSequenceClassification", num_labels=3)
    tuning_runs.same_as_the_librarys(Rows(), module, batch, labels=batch.labels)


def test_so_are_those_of_causal_models_and_of_pairs_of_texts() -> None:
    config = tuning_runs.llama().config
    config.num_labels = 3
    batch = rows([0, 2, 1])
    tuning_runs.same_as_the_librarys(
        Rows(), transformers.LlamaForSequenceClassification(config), batch, labels=batch.labels
    )
    paired = collate([[Example([3, 4, 5], (1,), whole=True, kinds=[0, 1, 1])], [Example([6], (0,), True, kinds=[0])]])
    module = tuning_runs.bert("ForSequenceClassification", num_labels=2)
    tuning_runs.same_as_the_librarys(Rows(), module, paired, labels=paired.labels)


def test_classes_of_tokens_are_the_librarys() -> None:
    batch = collate([[each] for each in tuning_runs.sentences(4)])
    labels = torch.where(batch.labels == -100, -100, batch.labels % 5)
    batch = dataclasses.replace(batch, labels=labels)
    module = tuning_runs.bert("ForTokenClassification", num_labels=5)
    tuning_runs.same_as_the_librarys(Tokens(), module, batch, labels=labels)


@pytest.mark.parametrize("training", [True, False])
def test_hidden_tokens_are_learnt_as_the_library_does_it(training: bool) -> None:
    objective = Masked(mask=MASK, vocabulary=tuning_runs.VOCABULARY)
    batch = objective.prepare(collate([[each] for each in tuning_runs.sentences(8)]), training)
    tuning_runs.same_as_the_librarys(objective, tuning_runs.bert("ForMaskedLM"), batch, labels=batch.labels)


def many() -> Batch:
    tokens = [3 + n % 7 for n in range(100)]
    made = collate([[Example(tokens, tokens)] for _ in range(400)])
    made.labels[:, :20] = -100  # special tokens, say
    return made


def test_what_is_hidden_is_drawn_as_bert_did() -> None:
    torch.manual_seed(4)
    before = many()
    after = Masked(mask=MASK, vocabulary=tuning_runs.VOCABULARY, share=0.15).prepare(before, training=True)
    chosen = after.labels != -100
    count = int(chosen.sum())
    assert not chosen[:, :20].any() and torch.equal(after.labels[chosen], before.labels[chosen])
    assert torch.equal(after.input_ids[~chosen], before.input_ids[~chosen])
    assert count == pytest.approx(0.15 * 400 * 80, rel=0.06)
    hidden = int((after.input_ids[chosen] == MASK).sum()) / count
    stayed = int((after.input_ids[chosen] == before.input_ids[chosen]).sum()) / count
    assert hidden == pytest.approx(0.8 + 0.1 / 24, abs=0.02)
    assert stayed == pytest.approx(0.1 + 0.1 / 24, abs=0.02)
    assert int(after.input_ids.max()) < 24 and int(after.input_ids.min()) >= 0


def test_training_draws_anew_from_the_default_numbers_and_evaluation_does_not() -> None:
    objective: Any = Masked(mask=MASK, vocabulary=24)

    def drawn(training: bool) -> torch.Tensor:
        made: torch.Tensor = objective.prepare(many(), training).input_ids
        return made

    torch.manual_seed(1)
    first, second = drawn(True), drawn(True)
    torch.manual_seed(1)
    assert torch.equal(drawn(True), first) and not torch.equal(first, second)
    assert torch.equal(drawn(False), drawn(False))
    state = torch.get_rng_state()
    drawn(False)
    assert torch.equal(torch.get_rng_state(), state)


def test_something_is_hidden_in_the_shortest_batch() -> None:
    batch = collate([[Example([3, 4, 5], [3, 4, 5])]])
    for _ in range(20):
        assert (
            Masked(mask=MASK, vocabulary=24, share=0.001).weight(
                Masked(mask=MASK, vocabulary=24, share=0.001).prepare(batch, True)
            )
            == 1.0
        )
    empty = dataclasses.replace(batch, labels=torch.full_like(batch.labels, -100))
    assert Masked(mask=MASK, vocabulary=24).weight(Masked(mask=MASK, vocabulary=24).prepare(empty, True)) == 0.0


def test_a_head_of_its_own_learns_beside_adapters() -> None:
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    module: Any = peft.get_peft_model(tuning_runs.bert("ForSequenceClassification", num_labels=3), settings)
    batch = rows([0, 2, 1])
    tuning_runs.same_as_the_librarys(Rows(), module, batch, labels=batch.labels)
    assert any("classifier" in name for name in tuning_runs.gradients(module))

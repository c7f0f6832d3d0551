"""A job with rows that have no labels learns from them, and says which are worth one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tuning_runs import Make, Serve, maker

from llmos.drivers.tuning.choosing import doubt, next_rows
from llmos.drivers.tuning.data.batches import collate
from llmos.drivers.tuning.job import Running
from llmos.drivers.tuning.labelling import UNSURE
from llmos.drivers.tuning.objectives.protocol import inputs
from llmos.drivers.tuning.optimizing import trainable
from llmos.drivers.tuning.preparing import Prepared
from llmos.drivers.tuning.slices import Stopped
from llmos.syscalls.errors import BadArgument

WORDS = ("quick", "brown", "fox", "lazy", "dog", "tokens", "pieces", "text")
ROWS = [{"text": f"{WORDS[n % 8]} {WORDS[n // 8]}", "label": "bad" if n % 2 else "good"} for n in range(24)]
RAW = [{"text": f"{WORDS[n % 8]} {WORDS[(n + 3) % 8]} {WORDS[n // 8]}"} for n in range(20)]
FILES = {"rows.jsonl": ROWS, "raw.jsonl": RAW}


@pytest.fixture
def make_classifier(serve: Serve, tmp_path: Path) -> Make:
    return maker(serve, tmp_path, "BertForSequenceClassification", labels=("bad", "good"))


def recipe(**asked: Any) -> dict[str, Any]:
    unlabelled = {"files": ["raw.jsonl"], "confidence": 0.5, "choose": 3, "rows": 6, **asked}
    options = {"unlabelled": unlabelled, "augment": {"typos": 0.5}, "long": "drop"}
    return {
        "objective": "classification", "files": FILES, "eval_fraction": 0.4, "max_steps": 4, "checkpoint_every": 2,
        "learning_rate": 0.05, "max_length": 32, "options": options,
    }  # fmt: skip


def reported(prepared: Prepared) -> tuple[Running, dict[str, Any]]:
    running = Running(prepared)
    running.work(lambda: None)
    [told] = [each.facts["report"] for each in running.told() if "report" in each.facts]
    return running, told


def test_the_report_names_the_rows_that_are_worth_a_label(make_classifier: Make) -> None:
    prepared = make_classifier(**recipe())
    running, told = reported(prepared)
    pool = prepared.data.pool
    assert pool is not None and told["unlabelled"]["rows"] == 20
    rows = collate([[one] for one in pool.given])
    with torch.no_grad():
        answer = prepared.module.eval()(**inputs(rows), output_hidden_states=True)
    mask = rows.attention_mask[..., None]
    unsure, vectors = doubt(answer.logits), (answer.hidden_states[-1] * mask).sum(1) / mask.sum(1)
    wanted = [pool.places[n] for n in next_rows(unsure, vectors, 3, UNSURE)]
    assert [each["place"] for each in told["unlabelled"]["to_label"]] == wanted
    first = told["unlabelled"]["to_label"][0]
    number = pool.places.index(first["place"])
    assert first["text"] == RAW[number]["text"] and first["doubt"] == pytest.approx(float(unsure[number]), rel=1e-4)
    assert first["said"] == ("bad", "good")[int(answer.logits[number].argmax())]
    sure = float((answer.logits.softmax(1).amax(1) >= 0.5).double().mean())
    assert running.values["eval_unlabelled_sure"] == pytest.approx(sure) == told["unlabelled"]["sure"][1]
    assert running.values["eval_unlabelled_doubt_before"] != running.values["eval_unlabelled_doubt"]


def test_what_is_learned_from_them_moves_weights_and_is_planned(make_classifier: Make) -> None:
    with_them, without = make_classifier(**recipe(weight=3.0)), make_classifier(**recipe(weight=0))
    bytes_of = [each.plan.facts["bytes"]["activations"] for each in (with_them, without)]
    assert bytes_of[0] > bytes_of[1]
    for each in (with_them, without):
        shutil.rmtree(each.job.keep, ignore_errors=True)
        reported(each)
    one, other = trainable(with_them.module), trainable(without.module)
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(make_classifier: Make) -> None:
    whole = make_classifier(**recipe())
    _, told = reported(whole)
    shutil.rmtree(whole.job.keep)
    interrupted = Running(make_classifier(**recipe()))

    def stop() -> None:
        if any(each.stage == "checkpoint" for each in interrupted.told()):
            raise Stopped

    with pytest.raises(Stopped):
        interrupted.work(stop)
    again = make_classifier(**recipe())
    assert reported(again)[1] == told
    assert all(torch.equal(value, trainable(again.module)[name]) for name, value in trainable(whole.module).items())


@pytest.mark.slow
def test_words_with_tags_are_chosen_by_their_worst_word(serve: Serve, tmp_path: Path) -> None:
    make = maker(serve, tmp_path, "BertForTokenClassification", labels=("O", "B-X"))
    rows = [{"tokens": [WORDS[n % 8], WORDS[n // 8]], "tags": ["O", "B-X"]} for n in range(24)]
    files = {"rows.jsonl": rows, "raw.jsonl": [{"tokens": each["text"].split()} for each in RAW]}
    prepared = make(**{**recipe(), "objective": "token-classification", "files": files})
    _, told = reported(prepared)
    pool = prepared.data.pool
    assert pool is not None
    batch = collate([[one] for one in pool.given])
    with torch.no_grad():
        scores = prepared.module.eval()(**inputs(batch)).logits
    worst = [float(doubt(row[labels != -100]).max()) for row, labels in zip(scores, batch.labels, strict=True)]
    for each in told["unlabelled"]["to_label"]:
        assert each["doubt"] == pytest.approx(worst[pool.places.index(each["place"])], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"eval_fraction": 0}, "choose", "choose goes with figures of held-out rows"),
        ({"options": {"unlabelled": {"files": ["no*"]}}}, "files", "no file of .* is named 'no"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    make_classifier: Make, changes: dict[str, Any], name: str, said: str
) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        make_classifier(**{**recipe(), **changes})
    assert caught.value.name == name

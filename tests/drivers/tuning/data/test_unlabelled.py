"""Rows without labels are read as those with labels are, and changed as these are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.dataset import finished
from llmos.drivers.tuning.data.unlabelled import Pool, encode_pool
from llmos.syscalls.errors import BadArgument
from training_data import base, jsonl, recipe, source

TYPOS = {"augment": {"typos": 0.9, "copies": 3}}


def pool(folder: Path, rows: list[dict[str, Any]], objective: str = "classification", **fields: Any) -> Pool:
    made = source(folder, {"raw.jsonl": jsonl(rows)})
    kind = kinds.TOKEN if objective == "token-classification" else kinds.SEQUENCE
    return finished(encode_pool(made, recipe(objective, **fields), base(kind=kind, labels=("a", "b")), ("a", "b")))


def test_labels_are_neither_needed_nor_read(tmp_path: Path) -> None:
    bare = pool(tmp_path / "a", [{"text": "some words"}, {"text": "other words"}])
    odd = pool(tmp_path / "b", [{"text": "some words", "label": "no such"}, {"text": "other words", "label": [1]}])
    assert bare == odd and [list(each.labels) for each in bare.given] == [[0], [0]]
    assert bare.places == ["raw.jsonl:1", "raw.jsonl:2"]
    assert [list(each) for each in bare.changed] == [[each] for each in bare.given], "nothing was to change"


def test_copies_are_changed(tmp_path: Path) -> None:
    made = pool(tmp_path, [{"text": "several words of some length"}], options=TYPOS)
    [copies] = made.changed
    assert len(copies) == 3 and all(copy.tokens != made.given[0].tokens for copy in copies)


def test_words_that_would_have_tags_stay_as_many(tmp_path: Path) -> None:
    made = pool(tmp_path, [{"tokens": ["several", "words", "here"]}], "token-classification", options=TYPOS)
    assert made.given[0].learned == 3 and made.changed[0] and all(copy.learned == 3 for copy in made.changed[0])


def test_of_equal_rows_one_stays_and_one_too_long_goes(tmp_path: Path) -> None:
    rows = [{"text": "some words"}, {"text": "word " * 40}, {"text": "some words"}]
    assert pool(tmp_path, rows, max_length=16).places == ["raw.jsonl:1"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"body": "words"}], "classification learns from text; name the columns"),
        ([{"text": 3}], r"raw.jsonl:1: 'text' is not a text"),
        ([{"text": "word " * 40}], "no row is left"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        pool(tmp_path, rows, max_length=16)

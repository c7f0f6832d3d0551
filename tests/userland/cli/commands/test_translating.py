"""Training data in other words: rows, copies, what is held out, and what is refused."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from llmos.syscalls.errors import BadArgument
from llmos.userland.cli.commands import translating

ROWS = [{"text": f"words {n}", "label": n % 2} for n in range(20)]


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


class Says:
    """A model that says something of each text."""

    def __init__(self, words: str) -> None:
        self.words, self.asked = words, list[dict[str, Any]]()

    def infer(self, text: str, **options: Any) -> Namespace:
        self.asked.append(options)
        return Namespace(text=f" {text}{self.words}\n")


def copies(row: dict[str, Any], *models: Says, field: list[str] | None = None, task: str | None = None) -> list[Any]:
    return list(translating._copies(models, row, Namespace(field=field, task=task)))  # type: ignore[arg-type]


def test_a_row_is_said_by_one_model_after_the_other_and_keeps_its_labels() -> None:
    there, back = Says(" hin"), Says(" her")
    assert copies({"text": "a b", "label": 1}, there, back) == [{"text": "a b hin her", "label": 1}]
    assert there.asked == back.asked == [{"task": "translation", "work_class": "batch"}]
    assert copies({"prompt": "p", "completion": "c"}, there, task="summarization") == [
        {"prompt": "p hin", "completion": "c"}
    ]
    assert there.asked[-1]["task"] == "summarization"


def test_what_comes_out_as_it_was_is_no_copy() -> None:
    assert copies({"text": "A  b", "label": 1}, Says("")) == []
    assert copies({"one": "x", "two": "y"}, Says("!"), field=["two"]) == [{"one": "x", "two": "y!"}]


def test_a_row_without_a_text_is_told() -> None:
    with pytest.raises(BadArgument, match="a row has 'label', and no text to translate: one of text, "):
        copies({"label": 1}, Says("!"))


def test_rows_that_are_held_out_stand_apart_and_have_no_copies(
    llmos: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translating, "_through", lambda _models, text, _task: f"{text} again")
    ran = llmos("back-translate ./data.jsonl ./more --through null --eval-fraction 0.3")
    assert ran.status == 0, ran.err
    train, held = read(here / "more/train.jsonl"), read(here / "more/validation.jsonl")
    assert 0 < len(held) < 20 and [row for row in ROWS if row not in held] == train[::2]
    assert train[1::2] == [{**row, "text": f"{row['text']} again"} for row in train[::2]]
    assert f"{20 - len(held)} rows and {20 - len(held)} in other words, {len(held)} rows held out" in ran.out
    again = llmos("back-translate ./data.jsonl ./more --through null")
    assert again.status != 0 and "more exists already" in again.err


def test_texts_go_through_models_that_serve(llmos: Any, here: Path) -> None:
    ran = llmos("back-translate ./data.jsonl ./more --through null --task text-generation --json")
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    assert told["rows"] == 20 and told["held_out"] == 0 and not (here / "more/validation.jsonl").exists()
    assert len(read(here / "more/train.jsonl")) == 20 + told["copies"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("./data.jsonl ./more", "--through MODEL, twice say"),
        ("./data.txt ./more --through null", "is none of .jsonl"),
        ("./none.jsonl ./more --through null", "cannot be read: No such file"),
        ("./bad.jsonl ./more --through null", "bad.jsonl:2: a row is a JSON object"),
        ("./worse.jsonl ./more --through null", "worse.jsonl:1: Expecting"),
        ("./data.jsonl ./more --through nobody", "nobody"),
        ("./data.jsonl ./more --through null --field nothing", "no text to translate"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_nothing(llmos: Any, here: Path, line: str, said: str) -> None:
    (here / "data.txt").write_text("words")
    (here / "bad.jsonl").write_text('{"text": "a"}\n[1]\n')
    (here / "worse.jsonl").write_text("words\n")
    before = sorted(here.iterdir())
    ran = llmos(f"back-translate {line}")
    assert ran.status != 0 and said in ran.err
    assert sorted(here.iterdir()) == before


def test_columns_of_a_table_are_rows(here: Path) -> None:
    (here / "table.csv").write_text("text,label\nfirst words,1\n")
    assert list(translating._rows(here / "table.csv")) == [{"text": "first words", "label": "1"}]

"""Whatever the format, the same rows come out, each with its file and line; what is broken is told with both."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llmos.drivers.contract import SourceFile
from llmos.drivers.tuning.data.source import DataSource
from llmos.syscalls.errors import BadArgument, NotSupported
from training_data import jsonl, source

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=30)
ROWS = [
    {"text": "one", "label": "a"}, {"text": 'two, "quoted"\nlines', "label": "b"}, {"text": "wörld 你", "label": "a"},
]  # fmt: skip


def as_csv(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", jsonl(ROWS)), ("a.ndjson", "\ufeff\n" + jsonl(ROWS).replace("\n", "\r\n\r\n")),
     ("a.json", json.dumps(ROWS, indent=1)), ("a.CSV", as_csv(ROWS)), ("a.tsv", "\ufeff" + as_csv(ROWS, "\t"))],
)  # fmt: skip
def test_each_format_gives_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    made = source(tmp_path, {name: content})
    assert [row.values for row in made] == ROWS
    assert [row.values for row in made] == ROWS, "each iteration reads the files again"
    assert made.facts == {"format": name[2:].lower(), "files": 1, "bytes": len(content.encode()), "ignored": []}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.fixed_dictionaries({"text": TEXT, "label": TEXT}), min_size=1, max_size=5))
def test_any_text_survives_every_format(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    for name, content in (("a.jsonl", jsonl(rows)), ("a.json", json.dumps(rows)), ("a.csv", as_csv(rows))):
        assert [row.values for row in source(tmp_path, {name: content})] == rows


def test_rows_know_their_line(tmp_path: Path) -> None:
    made = source(tmp_path, {"b/a.jsonl": '{"n": 1}\n\n{"n": 2}', "a.csv": 'text,n\n"x\ny",1\nz,2\n'})
    assert [row.place for row in made] == ["a.csv:3", "a.csv:4", "b/a.jsonl:1", "b/a.jsonl:3"]


def test_plain_texts_are_read_where_there_are_no_tables(tmp_path: Path) -> None:
    made = source(tmp_path, {"b.md": "two\nlines", "a.txt": "one", "empty.txt": " \n", "picture.png": b"\x89"})
    assert made.texts and [row.values["text"] for row in made] == ["one", "two\nlines"]
    assert made.facts["ignored"] == ["picture.png"]
    beside = source(tmp_path, {"rows.jsonl": '{"text": "x"}', "README.md": "about"})
    assert not beside.texts and beside.facts["ignored"] == ["README.md"] and len(list(beside)) == 1


def test_files_for_evaluation_are_known_by_name(tmp_path: Path) -> None:
    names = ("train-00000.jsonl", "validation.jsonl", "TEST-00001.jsonl", "more/dev.jsonl", "testing.jsonl")
    made = source(tmp_path, dict.fromkeys(names, '{"text": "x"}'))
    held = {row.file for row in made if row.held_out}
    assert held == {"validation.jsonl", "TEST-00001.jsonl", "more/dev.jsonl"}
    alone = source(tmp_path, {"test.jsonl": '{"text": "x"}'})
    assert not any(row.held_out for row in alone), "there is nothing else to train on"


def test_a_file_may_lie_within_another(tmp_path: Path) -> None:
    inside = jsonl(ROWS).encode()
    (tmp_path / "pack").write_bytes(b"before\n" + inside + b"behind\n")
    made = DataSource("/d", [SourceFile("a.jsonl", tmp_path / "pack", len(inside), 7)])
    assert [row.values for row in made] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "place", "said"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": ', "a.jsonl:2", "not JSON"),
        ("a.jsonl", "{}\n\n[1]\n", "a.jsonl:3", "a row is a JSON object"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1", "not JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}', "a.jsonl:2", "not UTF-8"),
        ("a.json", '{"a": 1}', "a.json", "one list of objects"),
        ("a.json", "[{}, 3]", "a.json:2", "a row is a JSON object"),
        ("a.csv", "text,label\na,1\nb\n", "a.csv:3", "has 1 fields, the first line 2"),
        ("a.csv", "text,label\n\na,1,2\n", "a.csv:3", "has 3 fields, the first line 2"),
        ("a.csv", "text,text\na,1\n", "a.csv:1", "two columns have the same name"),
        ("a.csv", 'text\n"a" b\n', "a.csv:2", "expected after"),
        ("a.csv", "text\n" + "x" * 200_000 + "\n", "a.csv:2", "field larger than"),
    ],
)
def test_what_is_broken_is_told_with_file_and_line(
    tmp_path: Path, name: str, content: Any, place: str, said: str
) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        list(source(tmp_path, {name: content}))
    assert caught.value.got == place and str(caught.value).startswith(place) and caught.value.want
    assert len(str(caught.value)) < 400


def test_a_file_that_went_away_is_told(tmp_path: Path) -> None:
    made = source(tmp_path, {"a.jsonl": "{}"})
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(BadArgument, match=r"a\.jsonl: cannot be read: No such file"):
        list(made)


@pytest.mark.parametrize("files", [{}, {"picture.png": b"\x89"}])
def test_a_folder_without_data_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(BadArgument, match="training data are files that end in"):
        source(tmp_path, files)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    answers = [{"text": ["a"], "answer_start": [n]} for n in range(600)]
    rows = [{"text": f"row {n}", "tags": [n, n + 1], "answers": answers[n]} for n in range(600)]
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    made = source(tmp_path, {"train.parquet": stream.getvalue()})
    assert [row.values for row in made] == rows and [row.line for row in made] == list(range(1, 601))
    with pytest.raises(BadArgument, match=r"train\.parquet: not Parquet"):
        list(source(tmp_path, {"train.parquet": stream.getvalue()[:-9]}))


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_without_its_package_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match=r"install llmos\[data\], or convert"):
        source(tmp_path, {"train.parquet": b"PAR1"})

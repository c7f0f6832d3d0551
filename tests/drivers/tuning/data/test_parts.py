"""Files are for what a recipe names them for, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmos.drivers.contract import SourceFile
from llmos.drivers.tuning.data.parts import parted
from llmos.syscalls.errors import BadArgument

FILES = [SourceFile(name, Path(name), 1) for name in ("a.jsonl", "b.jsonl", "old/c.jsonl", "old/d.csv")]


def names(named: dict[str, list[str]]) -> dict[str, list[str]]:
    return {use: [file.name for file in files] for use, files in parted("/d", FILES, named).items()}


def test_what_nothing_names_is_what_is_trained_on() -> None:
    assert names({}) == {"": [file.name for file in FILES]}
    assert names({"old": ["old/*"], "b": ["b.?sonl"]}) == {
        "": ["a.jsonl"], "old": ["old/c.jsonl", "old/d.csv"], "b": ["b.jsonl"],
    }  # fmt: skip
    assert names({"all": ["*"]})[""] == []


def test_a_name_that_fits_nothing_is_told_with_what_is_there() -> None:
    with pytest.raises(BadArgument, match="earlier: no file of /d is named 'old") as caught:
        parted("/d", FILES, {"earlier": ["old.jsonl"]})
    assert (caught.value.name, caught.value.got) == ("files", "old.jsonl")
    assert caught.value.want == "a.jsonl, b.jsonl, old/c.jsonl, old/d.csv"


def test_a_file_is_for_one_thing() -> None:
    with pytest.raises(BadArgument, match=r"b\.jsonl is one of the files of one and of two"):
        parted("/d", FILES, {"one": ["[ab].jsonl"], "two": ["b*"]})
    assert names({"one": ["b*", "b.jsonl"]})["one"] == ["b.jsonl"]

"""All data of a job are read together: what is learned, and what other files are for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.dataset import Dataset
from llmos.drivers.tuning.data.reading import read
from llmos.syscalls.errors import BadArgument
from training_data import base, jsonl, located, recipe

NEW = [{"text": f"new {n}", "label": "good" if n % 2 else "bad"} for n in range(20)]
OLD = [{"text": f"old {n}", "label": "bad" if n % 2 else "good"} for n in range(40)]


def made(folder: Path, earlier: Mapping[str, Any], old: list[dict[str, Any]] = OLD, **fields: Any) -> Dataset:
    files = located(folder, {"new.jsonl": jsonl(NEW), "old/rows.jsonl": jsonl(old)})
    asked = recipe("classification", options={"earlier": {"files": ["old/*"], **earlier}}, **fields)
    return read("/data", files, asked, base(kind=kinds.SEQUENCE, labels=("bad", "good")))


def plain(folder: Path) -> Dataset:
    files = located(folder, {"new.jsonl": jsonl(NEW)})
    return read("/data", files, recipe("classification"), base(kind=kinds.SEQUENCE, labels=("bad", "good")))


def test_old_rows_stand_by_themselves_and_none_is_trained_on_where_none_is_asked_for(tmp_path: Path) -> None:
    data, alone = made(tmp_path / "a", {}), plain(tmp_path / "b")
    assert data.train == alone.train and data.earlier is not None
    assert (len(data.earlier.train), data.earlier.labels) == (40, ("bad", "good"))
    assert data.digest not in (alone.digest, data.earlier.digest)
    assert data.facts["earlier"]["kept"] == 40 and data.facts["earlier"]["replayed"] == 0


def test_a_share_of_what_is_trained_on_is_old(tmp_path: Path) -> None:
    data, alone = made(tmp_path / "a", {"share": 0.5}), plain(tmp_path / "b")
    assert data.earlier is not None
    assert list(data.train[:20]) == list(alone.train)
    assert len(data.train) == 40 and all(example in data.earlier.train for example in data.train[20:])
    assert data.facts["earlier"]["replayed"] == 20


def test_a_buffer_holds_as_many_as_asked_whatever_their_order(tmp_path: Path) -> None:
    one = made(tmp_path / "a", {"keep": 7}).earlier
    other = made(tmp_path / "b", {"keep": 7}, old=OLD[::-1]).earlier
    assert one is not None and other is not None and len(one.train) == 7
    assert sorted(str(each) for each in one.train) == sorted(str(each) for each in other.train)


def test_old_rows_are_held_out_as_new_ones_are(tmp_path: Path) -> None:
    data = made(tmp_path, {"share": 0.5}, eval_fraction=0.4)
    assert data.earlier is not None and data.earlier.held_out and data.held_out
    assert not any(example in data.earlier.held_out for example in data.train)


def test_old_rows_have_the_labels_of_the_new_ones(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match=r"old/rows.jsonl:1: there is no such label \(odd\)"):
        made(tmp_path, {}, old=[{"text": "a", "label": "odd"}])


def test_a_folder_of_old_rows_alone_teaches_nothing(tmp_path: Path) -> None:
    files = located(tmp_path, {"old/rows.jsonl": jsonl(OLD)})
    asked = recipe("classification", options={"earlier": {"files": ["old/*"]}})
    with pytest.raises(BadArgument, match="/data holds nothing"):
        read("/data", files, asked, base(kind=kinds.SEQUENCE, labels=("bad", "good")))

from __future__ import annotations

from pathlib import Path

import pytest
from llmos.drivers.filesystems.models import changes
from llmos.drivers.filesystems.models.changes import Mark, note, since


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".llmos").mkdir()
    return tmp_path


def test_each_reader_goes_on_where_it_stopped(root: Path) -> None:
    assert since(root, Mark()) == ([], Mark())
    note(root, "/a")
    note(root, "/org/b\n")
    found, mark = since(root, Mark())
    assert found == ["/a", "/org/b\n"]
    assert since(root, mark) == ([], mark)
    note(root, "/c")
    found, later = since(root, mark)
    assert found == ["/c"] and since(root, Mark.parse(str(later))) == ([], later)
    assert since(root, mark)[0] == ["/c"]


def test_another_log_means_that_anything_may_have_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note(root, "/a")
    _, mark = since(root, Mark())
    monkeypatch.setattr(changes, "MAX_BYTES", 8)
    note(root, "/b")
    assert (root / ".llmos" / "changes").stat().st_size == 0
    found, new = since(root, mark)
    assert found is None and since(root, new) == ([], new)
    (root / ".llmos" / "changes").unlink()
    assert since(root, new) == (None, Mark())


def test_cut_and_foreign_lines_are_left_out(root: Path) -> None:
    note(root, "/a")
    _, mark = since(root, Mark())
    log = root / ".llmos" / "changes"
    log.write_bytes(log.read_bytes() + b'"/cut\n7\n"/b"\n"/not yet')
    found, later = since(root, mark)
    assert found == ["/b"]
    log.write_bytes(log.read_bytes() + b' ended"\n')
    assert since(root, later)[0] == ["/not yet ended"]


def test_a_log_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    note(tmp_path / "none", "/a")
    assert since(tmp_path / "none", Mark()) == ([], Mark())


@pytest.mark.parametrize("text", ["", "x", "1", "1:", "-1:2", "1:2:3"])
def test_a_mark_that_is_none_is_the_beginning(text: str) -> None:
    assert Mark.parse(text) == Mark()

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models.measured import checked, drop_measures, read_measures, write_measures
from llmos.syscalls.errors import BadArgument


def test_what_is_written_is_read(tmp_path: Path) -> None:
    values = {("1", "cpu0", "tokens_per_s"): 41.5, ("2", "", "quality"): 0.5, ("1", "cpu0", "load_s"): 2.0}
    write_measures(tmp_path, ("org", "a/b"), values)
    assert read_measures(tmp_path, ("org", "a/b")) == values
    assert read_measures(tmp_path, ("org",)) == {}
    drop_measures(tmp_path, ("org", "a/b"))
    drop_measures(tmp_path, ("org", "a/b"))
    assert read_measures(tmp_path, ("org", "a/b")) == {}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"1": 2}', b'{"1": {"d": {"n": "x"}}}', b'{"1": {"d": {"n": []}}}'])
def test_a_damaged_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    write_measures(tmp_path, ("m",), {})
    [file] = (tmp_path / ".llmos" / "measured").iterdir()
    file.write_bytes(content)
    assert read_measures(tmp_path, ("m",)) == {}


@pytest.mark.parametrize(
    "values", [None, {}, [], {"tokens_per_s": -1}, {"tokens_per_s": math.nan}, {"speed": 1}, {"quality": True}]
)
def test_only_known_numbers_are_taken(values: Any) -> None:
    with pytest.raises(BadArgument, match="measure"):
        checked(values)
    assert checked({"quality": 1}) == {"quality": 1.0}


def test_long_names_do_not_meet(tmp_path: Path) -> None:
    for last in "ab":
        write_measures(tmp_path, ("o" * 250, "n" * 200 + last), {("1", "d", last): 1.0})
    for last in "ab":
        assert read_measures(tmp_path, ("o" * 250, "n" * 200 + last)) == {("1", "d", last): 1.0}

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.filesystems.handles import BytesHandle, ReadHandle, check_mode, check_version
from llmos.syscalls.errors import BadArgument, Conflict, NotSupported

SPANS = st.integers(min_value=0, max_value=2**64)


@given(st.binary(max_size=50), SPANS | st.integers(0, 60), SPANS | st.integers(0, 60))
def test_reads_are_slices(data: bytes, offset: int, count: int) -> None:
    descriptor = os.memfd_create("data")
    os.write(descriptor, data)
    for handle in (ReadHandle("/f", descriptor, "v"), BytesHandle(data, "v")):
        assert handle.bytes == len(data)
        assert handle.read(offset, count) == data[offset : offset + count]
        assert handle.close() == "v"


def test_a_replaced_file_stays_readable(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    handle = ReadHandle("/f", os.open(tmp_path / "f", os.O_RDONLY), "1")
    (tmp_path / "g").write_text("new")
    (tmp_path / "g").replace(tmp_path / "f")
    assert handle.read(0, 10) == b"old"
    with pytest.raises(NotSupported):
        handle.write(0, b"x")
    handle.discard()


def test_modes() -> None:
    assert [check_mode(mode) for mode in "rwax"] == ["r", "w", "a", "x"]
    for mode in ("", "rw", "rb", "R"):
        with pytest.raises(BadArgument) as caught:
            check_mode(mode)
        assert caught.value.got == mode


def test_versions() -> None:
    check_version("/f", "1", None)
    check_version("/f", "1", "1")
    check_version("/f", "", "")
    for found, expected in [("2", "1"), ("2", ""), ("", "1")]:
        with pytest.raises(Conflict) as caught:
            check_version("/f", found, expected)
        assert caught.value.version == found

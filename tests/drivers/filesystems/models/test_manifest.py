from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.filesystems.models import manifest as module
from llmos.drivers.filesystems.models.manifest import Listed, listed_files, read_object
from llmos.syscalls.errors import BadModel

HASH = "a" * 64
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_the_listed_files() -> None:
    files = [{"name": "a", "bytes": 0}, {"name": "b/c", "bytes": 5, "sha256": HASH, "more": 1}]
    for extra in ({}, {"format": 1}, {"format": 1, "unknown": {"kept": True}}):
        assert listed_files({"files": files, **extra}) == {"a": Listed("a", 0, ""), "b/c": Listed("b/c", 5, HASH)}


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ({}, "no list of files"),
        ({"files": {}}, "no list of files"),
        ({"files": [], "format": 2}, "format 2"),
        ({"files": [], "format": "gguf"}, "format 'gguf'"),
        ({"files": ["a"]}, "without name and bytes"),
        ({"files": [{"name": "a"}]}, "without name and bytes"),
        ({"files": [{"name": "a", "bytes": -1}]}, "without name and bytes"),
        ({"files": [{"name": "a", "bytes": "1"}]}, "without name and bytes"),
        ({"files": [{"name": "a", "bytes": 1, "sha256": "A" * 64}]}, "64 hexadecimal"),
        ({"files": [{"name": "a", "bytes": 1, "sha256": 7}]}, "64 hexadecimal"),
        ({"files": [{"name": "a", "bytes": 1}] * 2}, "twice"),
        *[
            ({"files": [{"name": name, "bytes": 1}]}, "not a path inside")
            for name in ("../a", "/a", "a/../../b", "a//b", "./a", "", ".", "a\0", "..")
        ],
    ],
)
def test_manifests_that_cannot_be_used(manifest: dict[str, Any], why: str) -> None:
    with pytest.raises(BadModel, match=why) as caught:
        listed_files(manifest)
    assert caught.value.file == "manifest.json"


@given(st.dictionaries(st.sampled_from(["files", "format", "x"]), JSON))
def test_any_manifest_is_read_or_refused(manifest: dict[str, Any]) -> None:
    try:
        files = listed_files(manifest)
    except BadModel:
        return
    for name in files:
        assert not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


@pytest.mark.parametrize(
    ("content", "why"), [(b"{", "not JSON"), (b"\xff\xfe", "not JSON"), (b"[]", "object"), (b"[" * 99999, "not JSON")]
)
def test_objects_that_are_not(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(BadModel, match=why) as caught:
        read_object(tmp_path / "f", "config.json")
    assert caught.value.file == "config.json"


def test_a_huge_file_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_JSON", 10)
    (tmp_path / "f").write_bytes(b"{" + b" " * 10 + b"}")
    with pytest.raises(BadModel, match="12 bytes"):
        read_object(tmp_path / "f", "f")

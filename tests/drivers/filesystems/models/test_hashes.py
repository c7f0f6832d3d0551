from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from llmos.drivers.filesystems.models.hashes import CHUNK, HashCache, sha256_of
from llmos.drivers.filesystems.models.scan import scanned


@pytest.fixture
def cache(tmp_path: Path) -> HashCache:
    return HashCache(tmp_path / "home" / "cache")


def test_a_hash_is_computed_once(tmp_path: Path, cache: HashCache) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"content")
    file = scanned("f", path)
    assert cache.known(file) is None
    assert cache.digest(file) == hashlib.sha256(b"content").hexdigest()
    # What is remembered answers, not the file: a planted hash comes back.
    [entry] = (tmp_path / "home" / "cache").iterdir()
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "sha256": "planted"}))
    assert cache.digest(file) == "planted"


def test_a_changed_file_is_read_again(tmp_path: Path, cache: HashCache) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    times = path.stat()
    cache.digest(scanned("f", path))
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache.digest(scanned("f", path)) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{}", b'{"stamp": 1}'])
def test_a_damaged_cache_is_read_over(tmp_path: Path, cache: HashCache, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    cache.digest(scanned("f", path))
    [entry] = (tmp_path / "home" / "cache").iterdir()
    entry.write_bytes(content)
    assert cache.digest(scanned("f", path)) == hashlib.sha256(b"x").hexdigest()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    cache = HashCache(tmp_path / "file" / "cache")
    assert cache.digest(scanned("file", tmp_path / "file")) == hashlib.sha256(b"x").hexdigest()


def test_files_that_are_gone_are_forgotten(tmp_path: Path, cache: HashCache) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
        cache.digest(scanned(name, tmp_path / name))
    (tmp_path / "home" / "cache" / "odd.json").write_text("[]")
    (tmp_path / "a").unlink()
    assert cache.prune() == 2
    assert cache.known(scanned("b", tmp_path / "b")) is not None


def test_progress_is_shown_block_by_block(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(CHUNK + 5))
    seen: list[tuple[int, int, str, str]] = []

    def progress(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
        seen.append((done, total, unit, stage))

    sha256_of(scanned("f", path), progress)
    assert seen == [(CHUNK, CHUNK + 5, "bytes", "verify f"), (CHUNK + 5, CHUNK + 5, "bytes", "verify f")]

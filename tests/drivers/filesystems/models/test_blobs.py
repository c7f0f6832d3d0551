from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models import blobs as module
from llmos.drivers.filesystems.models.blobs import Blobs
from llmos.drivers.filesystems.models.hashes import HashCache
from llmos.drivers.filesystems.models.scan import ScannedFile, scanned

DATA = b"content"
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def hashes(tmp_path: Path) -> HashCache:
    return HashCache(tmp_path / "cache")


@pytest.fixture
def blobs(tmp_path: Path, hashes: HashCache) -> Blobs:
    return Blobs(tmp_path / "models", hashes)


def file(folder: Path, name: str, data: bytes = DATA) -> ScannedFile:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(data)
    return scanned(name, folder / name)


def test_the_same_content_is_there_once(blobs: Blobs, hashes: HashCache, tmp_path: Path) -> None:
    one = blobs.adopt(file(tmp_path / "models" / "a", "x"), SHA)
    two = blobs.adopt(file(tmp_path / "models" / "b", "y"), SHA)
    assert (one.joined, one.shared, two.joined, two.shared) == (True, False, True, True)
    paths = [blobs.path(SHA), one.file.path, two.file.path]
    assert len({path.stat().st_ino for path in paths}) == 1
    assert paths[0].stat().st_nlink == 3 and paths[0].stat().st_mode & 0o777 == 0o444
    assert [*blobs.all()] == [paths[0]]
    # Known without reading, under each of its names.
    assert [hashes.known(scanned("f", path)) for path in paths] == [SHA] * 3
    assert blobs.adopt(scanned("y", two.file.path), SHA).shared is False


def test_a_damaged_blob_is_replaced_and_not_used(blobs: Blobs, tmp_path: Path) -> None:
    blobs.adopt(file(tmp_path / "models" / "a", "x"), SHA)
    blobs.path(SHA).chmod(0o644)
    blobs.path(SHA).write_bytes(b"damaged")
    two = blobs.adopt(file(tmp_path / "models" / "b", "y"), SHA)
    assert not two.shared and blobs.path(SHA).read_bytes() == two.file.path.read_bytes() == DATA
    assert (tmp_path / "models" / "a" / "x").read_bytes() == b"damaged"


def test_a_file_changed_since_it_was_hashed_is_not_believed(blobs: Blobs, hashes: HashCache, tmp_path: Path) -> None:
    old = file(tmp_path / "models" / "a", "x")
    old.path.write_bytes(b"changed later")
    adopted = blobs.adopt(old, SHA)
    assert adopted.joined and hashes.known(scanned("x", old.path)) is None
    two = blobs.adopt(file(tmp_path / "models" / "b", "y"), SHA)
    assert not two.shared and two.file.path.read_bytes() == DATA


@pytest.mark.parametrize("code", [errno.EPERM, errno.EMLINK, errno.EXDEV])
def test_without_hard_links_each_has_its_own_copy(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, "no links here")

    monkeypatch.setattr(module.os, "link", refuse)
    adopted = blobs.adopt(file(tmp_path / "models" / "a", "x"), SHA)
    assert not adopted.joined and not adopted.shared and adopted.file.path.read_bytes() == DATA
    monkeypatch.undo()
    assert blobs.renew(SHA, adopted.file.path)
    monkeypatch.setattr(module.os, "link", refuse)
    blobs.restore(SHA, tmp_path / "models" / "b" / "y")
    assert (tmp_path / "models" / "b" / "y").read_bytes() == DATA


def test_other_refusals_are_errors(blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    adopted = blobs.adopt(file(tmp_path / "models" / "a", "x"), SHA)
    monkeypatch.setattr(module.os, "link", refuse)
    with pytest.raises(OSError, match="full"):
        blobs.adopt(file(tmp_path / "models" / "b", "y", b"other"), "0" * 64)
    with pytest.raises(OSError, match="full"):
        blobs.restore(SHA, tmp_path / "models" / "c")
    assert adopted.file.path.read_bytes() == DATA


def test_what_became_no_version_leaves_no_blob(blobs: Blobs, tmp_path: Path) -> None:
    kept = blobs.adopt(file(tmp_path / "models" / "a", "x"), SHA)
    shared = blobs.adopt(file(tmp_path / "models" / "b", "x"), SHA)
    other = hashlib.sha256(b"other").hexdigest()
    fresh = blobs.adopt(file(tmp_path / "models" / "b", "y", b"other"), other)
    blobs.undo([(shared, SHA), (fresh, other), (kept, SHA)])
    assert [*blobs.all()] == [blobs.path(SHA)] and fresh.file.path.read_bytes() == b"other"


def test_only_what_nobody_has_is_collected(blobs: Blobs, tmp_path: Path) -> None:
    one = blobs.adopt(file(tmp_path / "models" / "a", "x"), SHA)
    other = hashlib.sha256(b"other").hexdigest()
    blobs.adopt(file(tmp_path / "models" / "a", "y", b"other"), other)
    assert blobs.collect() == (0, 0)
    (tmp_path / "models" / "a" / "y").unlink()
    assert blobs.collect() == (1, 5) and [*blobs.all()] == [blobs.path(SHA)]
    one.file.path.unlink()
    assert blobs.collect() == (1, 7) and [*blobs.all()] == []
    assert Blobs(tmp_path / "none", HashCache(tmp_path)).collect() == (0, 0)


def test_a_hash_stays_known_when_another_name_goes(blobs: Blobs, hashes: HashCache, tmp_path: Path) -> None:
    one = blobs.adopt(file(tmp_path / "models" / "a", "x"), SHA)
    two = blobs.adopt(file(tmp_path / "models" / "b", "x"), SHA)
    loose = file(tmp_path, "loose")
    hashes.digest(loose)
    shares = blobs.sound_shares([two.file, loose])
    assert shares == [(blobs.path(SHA), SHA)]
    two.file.path.unlink()
    assert hashes.known(scanned("x", one.file.path)) is None  # its ctime has changed
    blobs.settle([*shares, (tmp_path / "gone", SHA)])
    assert hashes.known(scanned("x", one.file.path)) == SHA


def test_a_blob_is_made_again_from_a_sound_copy_only(blobs: Blobs, tmp_path: Path) -> None:
    sound, bad = file(tmp_path, "sound"), file(tmp_path, "bad", b"x")
    assert not blobs.renew(SHA, bad.path) and [*blobs.all()] == []
    assert blobs.renew(SHA, sound.path) and blobs.path(SHA).read_bytes() == DATA
    assert blobs.path(SHA).stat().st_ino != sound.path.stat().st_ino
    blobs.restore(SHA, tmp_path / "models" / "m" / "deep" / "f")
    assert blobs.path(SHA).samefile(tmp_path / "models" / "m" / "deep" / "f")

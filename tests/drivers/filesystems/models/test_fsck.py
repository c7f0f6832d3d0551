from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.syscalls.errors import NotFound


@pytest.fixture
def system(models: Any, commit: Any) -> ModelsFileSystem:
    """One model `/m` with three versions that share all but their weights' last tensor."""
    found: ModelsFileSystem = models()
    for number in range(3):
        commit(found, "/m", files={"tokenizer.json": b"%d" % number})
    return found


def flip(path: Path) -> None:
    """What a failing disk does: one bit changes, and nothing else of the file."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def spots(report: Any) -> set[tuple[str, str, str]]:
    return {(found["path"], found["version"], found["file"]) for found in report["problems"]}


def blob_of(root: Path, data: bytes) -> Path:
    sha256 = hashlib.sha256(data).hexdigest()
    return root / ".llmos" / "blobs" / sha256[:2] / sha256


def test_every_kind_of_damage_is_found(system: ModelsFileSystem, make_model: Any, tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "plain")
    report = system.control("fsck", {})
    assert report["ok"] and report["problems"] == [] and report["repaired"] == [] and report["index"] == 0
    assert (report["models"], report["versions"], report["files"], report["blobs"]) == (2, 4, 15, 5)
    kept = tmp_path / "models" / "m" / "versions"
    flip(kept / "1" / "tokenizer.json")
    (kept / "2" / "tokenizer.json").unlink()
    (kept / "3" / "manifest.json").write_text("{")
    (tmp_path / "models" / "plain" / "model.safetensors").write_bytes(b"")
    make_model(tmp_path / "models" / "refs")
    (tmp_path / "models" / "refs" / "refs.json").write_text("{")
    report = system.control("fsck", {})
    assert not report["ok"] and spots(report) == {
        ("/m", "1", "tokenizer.json"), ("/m", "2", "tokenizer.json"), ("/m", "3", "manifest.json"),
        ("/plain", "local", "model.safetensors"), ("/refs", "", "refs.json"),
    }  # fmt: skip
    assert {found["path"] for found in system.control("fsck", {"name": "plain"})["problems"]} == {"/plain"}
    make_model(tmp_path / "models" / "org" / "sound")
    assert [system.control("fsck", {"name": name})["models"] for name in ("org", "/org/sound", "/")] == [1, 1, 4]
    with pytest.raises(NotFound, match="no model /none"):
        system.control("fsck", {"name": "none"})


def test_damage_in_a_shared_content_is_damage_of_all_who_share_it(system: ModelsFileSystem, tmp_path: Path) -> None:
    flip(tmp_path / "models" / "m" / "versions" / "2" / "model.safetensors")
    report = system.control("fsck", {"repair": True})
    assert spots(report) == {("/m", version, "model.safetensors") for version in "123"}
    assert report["repaired"] == []


def test_a_file_that_is_missing_or_replaced_is_restored_from_its_blob(system: ModelsFileSystem, tmp_path: Path) -> None:
    kept = tmp_path / "models" / "m" / "versions"
    (kept / "1" / "model.safetensors").unlink()
    (kept / "2" / "tokenizer.json").unlink()
    (kept / "2" / "tokenizer.json").write_bytes(b"9")
    assert len(system.control("fsck", {})["problems"]) == 2
    assert not (kept / "1" / "model.safetensors").exists(), "without repair nothing is changed"
    report = system.control("fsck", {"repair": True})
    assert report["ok"] and report["repaired"] == [
        {"path": "/m", "version": "1", "file": "model.safetensors", "from": "its blob"},
        {"path": "/m", "version": "2", "file": "tokenizer.json", "from": "its blob"},
    ]
    assert (kept / "2" / "tokenizer.json").read_bytes() == b"1"
    assert (kept / "1" / "model.safetensors").samefile(kept / "3" / "model.safetensors")
    for version in "123":
        token, _ = system.locate(f"/m@{version}")
        system.release(token)


def test_shared_damage_is_mended_from_another_file_with_that_content(
    system: ModelsFileSystem, make_model: Any, tmp_path: Path
) -> None:
    make_model(tmp_path / "models" / "plain")
    assert system.control("fsck", {})["ok"]  # now the hashes of the plain folder are known
    flip(tmp_path / "models" / "m" / "versions" / "2" / "model.safetensors")
    report = system.control("fsck", {"repair": True})
    assert report["ok"], report["problems"]
    assert [(one["version"], one["from"]) for one in report["repaired"]] == [
        ("1", "/plain@local"), ("2", "its blob"), ("3", "its blob")
    ]  # fmt: skip
    assert system.control("fsck", {})["ok"]


def test_a_damaged_blob_is_made_again_from_a_version(system: ModelsFileSystem, tmp_path: Path) -> None:
    blob = blob_of(tmp_path / "models", b"1")
    blob.unlink()
    blob.write_bytes(b"x")
    report = system.control("fsck", {"repair": True})
    assert report["ok"] and [one["from"] for one in report["repaired"]] == ["/m@2"]
    assert blob.read_bytes() == b"1"


def test_a_damaged_blob_that_nobody_needs_is_removed(system: ModelsFileSystem, tmp_path: Path) -> None:
    blob = tmp_path / "models" / ".llmos" / "blobs" / "00" / ("00" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"nothing hashes to this")
    [problem] = system.control("fsck", {})["problems"]
    assert problem["file"] == blob.name
    assert system.control("fsck", {"repair": True})["ok"] and not blob.exists()


def test_versions_from_before_there_were_blobs_get_them(system: ModelsFileSystem, tmp_path: Path) -> None:
    for blob in [*(tmp_path / "models" / ".llmos" / "blobs").glob("*/*")]:
        blob.unlink()
    assert system.control("fsck", {})["blobs"] == 0
    assert system.control("fsck", {"repair": True})["ok"]
    assert system.control("fsck", {})["blobs"] == 5


def test_the_index_is_made_again_and_its_errors_are_counted(system: ModelsFileSystem, tmp_path: Path) -> None:
    before = [hit.path for hit in system.search("/", "", {}, 9)]
    [file] = (tmp_path / "cache").glob("index-*.db")
    with sqlite3.connect(file) as db:
        db.execute("UPDATE version SET licence = 'wrong' WHERE version = '3'")
    db.close()
    assert system.control("fsck", {})["index"] == 2  # the wrong entry and the right one
    assert system.control("fsck", {})["index"] == 0
    assert [hit.path for hit in system.search("/", "", {}, 9)] == before


def test_a_folder_that_is_not_ours_is_not_mended(models: Any, make_model: Any, tmp_path: Path) -> None:
    below = models(tmp_path / "models", make_model(tmp_path / "below" / "m").parent)
    (tmp_path / "below" / "m" / "model.safetensors").write_bytes(b"")
    report = below.control("fsck", {"repair": True})
    assert not report["ok"] and report["repaired"] == []
    alone = models(tmp_path / "below" / "m")
    assert alone.control("fsck", {"repair": True})["problems"]


def test_bit_rot_of_a_plain_folder_is_found(models: Any, make_model: Any, tmp_path: Path) -> None:
    system = models(make_model(tmp_path / "m"))
    assert system.control("fsck", {})["ok"]
    # The stamp cannot be forged without root, so the remembered hash is changed instead of the file.
    entry = next(path for path in (tmp_path / "cache").glob("*.json") if "safetensors" in path.read_text())
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "sha256": "0" * 64}))
    for _ in range(2):
        [problem] = system.control("fsck", {})["problems"]
        assert problem["file"] == "model.safetensors" and "changed on disk" in problem["why"]

"""What a commit stores: the same content once, hashes that are known already, the card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models import publish
from llmos.syscalls.errors import Conflict


def test_the_same_content_takes_its_space_once(models: Any, commit: Any, tmp_path: Path) -> None:
    system = models()
    commit(system, "/m", files={"extra": b"x" * 1000})
    commit(system, "/m", files={"extra": b"y" * 1000})
    commit(system, "/org/copy", files={"extra": b"x" * 1000})
    root = tmp_path / "models"
    one, two, three = (root / path / "extra" for path in ("m/versions/1", "m/versions/2", "org/copy/versions/1"))
    assert one.samefile(three) and not one.samefile(two)
    sha256 = hashlib.sha256(b"x" * 1000).hexdigest()
    blob = root / ".llmos" / "blobs" / sha256[:2] / sha256
    assert blob.samefile(one) and one.stat().st_nlink == 3
    weights = root / "m" / "versions" / "1" / "model.safetensors"
    assert weights.stat().st_nlink == 4 and weights.stat().st_mode & 0o222 == 0


def test_known_hashes_are_not_computed_again(
    models: Any, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = models()
    token, folder = system.stage("/m")
    make_model(folder)
    known = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(publish, "sha256_of", None)
    assert system.commit(token, {}, known=known) == "1"
    token, source = system.locate("/m")
    assert {entry["sha256"] for entry in source.manifest["files"]} == set(known.values())
    system.release(token)


def test_what_is_known_wrongly_is_found_by_fsck(models: Any, make_model: Any) -> None:
    system = models()
    token, folder = system.stage("/m")
    make_model(folder)
    system.commit(token, {}, known={"tokenizer.json": "0" * 64})
    assert [problem["file"] for problem in system.control("fsck", {})["problems"]] == ["tokenizer.json"]


def test_a_commit_that_fails_leaves_no_content_behind(models: Any, make_model: Any, tmp_path: Path) -> None:
    system = models()
    token, folder = system.stage("/m")
    make_model(folder)
    with pytest.raises(Conflict):
        system.commit(token, {}, "7")
    assert [*(tmp_path / "models" / ".llmos" / "blobs").glob("*/*")] == []
    assert system.commit(token, {}, "") == "1"


def test_the_card_is_part_of_the_manifest(models: Any, commit: Any) -> None:
    system = models()
    card = b"---\nlicense: mit\nlanguage: en\nbase_model: acme/base\n---\nText"
    commit(system, "/m", {"languages": ["de"]}, files={"README.md": card})
    fields = system.stat("/m").fields
    assert (fields["licence"], fields["languages"]) == ("mit", ["de"])
    assert fields["parents"] == [{"path": "acme/base", "version": "", "how": "finetune"}]

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models import scan as module
from llmos.drivers.filesystems.models.scan import allowed_folders, open_scanned, scan, scanned
from llmos.syscalls.errors import NotFound


def test_files_are_found_with_names_relative_to_the_folder(tmp_path: Path, make_model: Any) -> None:
    make_model(tmp_path, {"onnx/deep/extra.json": b"{}", ".git/config": b"x", ".hidden": b"x", "versions/1/a": b"x",
                          "refs.json": b"{}"})  # fmt: skip
    found = scan(tmp_path)
    assert [*found.files] == ["config.json", "model.safetensors", "onnx/deep/extra.json", "tokenizer.json"]
    assert found.files["tokenizer.json"].bytes == 2
    assert found.problem is None


def test_the_stamp_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    before = scanned("f", path)
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = scanned("f", path)
    assert (before.bytes, before.mtime) == (after.bytes, after.mtime)
    assert before.stamp != after.stamp


def test_a_link_inside_is_followed_and_one_that_leaves_is_a_problem(tmp_path: Path, make_model: Any) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "copy.json").symlink_to("config.json")
    assert scan(folder).problem is None
    assert scan(folder).files["copy.json"].bytes == (folder / "config.json").stat().st_size
    (tmp_path / "secret").write_text("x")
    (folder / "bad.json").symlink_to("../secret")
    found = scan(folder)
    assert found.problem is not None and found.problem.file == "bad.json"
    assert "leaves the model's folder" in found.problem.why
    assert "bad.json" not in found.files


@pytest.mark.parametrize("kind", ["dangling", "folder", "pipe"])
def test_what_is_not_a_file_is_a_problem(tmp_path: Path, make_model: Any, kind: str) -> None:
    folder = make_model(tmp_path / "m", {"inner/f": b"x"})
    odd = folder / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to("missing" if kind == "dangling" else "inner")
    problem = scan(folder).problem
    assert problem is not None and problem.file == "odd"


def test_names_that_are_not_text_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.json")).touch()
    problem = scan(tmp_path).problem
    assert problem is not None and "Unicode" in problem.why
    problem.file.encode()


def test_the_blobs_of_a_hub_cache_belong_to_its_snapshots(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    blob = repository / "blobs" / "0a1b"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"{}")
    snapshot = repository / "snapshots" / "rev"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/0a1b")
    assert scan(snapshot).problem is None
    assert allowed_folders(snapshot) == (snapshot, repository / "blobs")
    (repository / "refs").mkdir()
    (snapshot / "ref").symlink_to("../../refs")
    assert scan(snapshot).problem is not None
    assert allowed_folders(repository / "refs") == (repository / "refs",)


def test_a_link_swapped_in_after_the_scan_leads_nowhere(tmp_path: Path, make_model: Any) -> None:
    folder = make_model(tmp_path / "m", {"inner/f": b"x"})
    (tmp_path / "secret").write_text("x")
    file = scan(folder).files["tokenizer.json"]
    os.close(open_scanned(folder, file))
    for target, refusal in [(tmp_path / "secret", NotFound), (folder / "inner", IsADirectoryError)]:
        file.path.unlink()
        file.path.symlink_to(target)
        with pytest.raises(refusal):
            open_scanned(folder, file)


def test_a_huge_folder_is_not_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()
    problem = scan(tmp_path).problem
    assert problem is not None and "over 3 files" in problem.why

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models.describe import COMPLETE, KEPT, Described, Describer, check, complete
from llmos.drivers.filesystems.models.hashes import HashCache
from llmos.drivers.filesystems.models.scan import scan
from llmos.drivers.filesystems.models.store import Layer, Store
from llmos.syscalls.errors import BadModel


def describe(folder: Path) -> Described:
    model = Store([Layer(folder, False)]).model(())
    assert model is not None
    return Describer().describe(model, model.choose(""))


def checked(folder: Path, tmp_path: Path) -> list[str]:
    return [file.name for file in check(describe(folder), HashCache(tmp_path / "cache"))]


def refused(folder: Path, tmp_path: Path) -> BadModel:
    with pytest.raises(BadModel) as caught:
        checked(folder, tmp_path)
    assert caught.value.file in str(caught.value) and caught.value.why in str(caught.value)
    return caught.value


def manifest_for(folder: Path, **more: Any) -> bytes:
    files = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(folder.iterdir())
    ]
    return json.dumps({"format": 1, "version": "v1", "files": files, **more}).encode()


@pytest.fixture
def folder(tmp_path: Path, make_model: Any) -> Path:
    found: Path = make_model(tmp_path / "m")
    return found


def test_a_plain_folder_is_described_and_checked(folder: Path, tmp_path: Path) -> None:
    described = describe(folder)
    assert (described.version, described.manifest["name"]) == ("local", "m")
    assert described.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert checked(folder, tmp_path) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_stored_manifest_wins_and_keeps_what_is_unknown(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("card")
    listed = manifest_for(folder, parameters=5, mood="sunny")
    (folder / "manifest.json").write_bytes(listed)
    (folder / "loose.txt").write_text("not in the manifest")
    described = describe(folder)
    assert (described.manifest["parameters"], described.manifest["mood"], described.version) == (5, "sunny", "v1")
    assert described.manifest["architecture"] == "LlamaForCausalLM"
    assert checked(folder, tmp_path) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


def test_a_complete_manifest_is_taken_as_it_is(folder: Path) -> None:
    stored = dict.fromkeys(COMPLETE, 1)
    assert complete("m", stored, scan(folder).files) == stored


def test_a_complete_manifest_does_not_hide_damaged_weights(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    listed = {**dict.fromkeys(COMPLETE, 1), **json.loads(manifest_for(folder))}
    (folder / "manifest.json").write_text(json.dumps(listed))
    assert describe(folder).problem is None
    assert "truncated" in refused(folder, tmp_path).why


def test_pickles_are_never_handed_out(folder: Path, tmp_path: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"\x80\x04")
    (folder / "optimizer.pt").write_bytes(b"\x80\x04")
    assert checked(folder, tmp_path) == ["config.json", "model.safetensors", "tokenizer.json"]
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refused(folder, tmp_path)
    assert error.file == "pytorch_model.bin" and "convert it to safetensors" in error.why


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.pt", "m.pth", "m.pkl", "m.ckpt"])
def test_a_manifest_cannot_ask_for_a_pickle(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x80\x04")
    (folder / "manifest.json").write_bytes(manifest_for(folder))
    error = refused(folder, tmp_path)
    assert error.file == name and "convert it to safetensors" in error.why


def test_missing_and_short_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_bytes(manifest_for(folder))
    (folder / "tokenizer.json").write_text("{} ")
    assert "has 3 bytes, the manifest says 2" in refused(folder, tmp_path).why
    (folder / "tokenizer.json").unlink()
    assert refused(folder, tmp_path).file == "tokenizer.json"


def test_no_weights_at_all_is_said(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    error = refused(folder, tmp_path)
    assert error.file == "model.safetensors" and "missing" in error.why


def test_truncated_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for length in (0, 5, 20, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:length])
        assert refused(folder, tmp_path).file == "model.safetensors"
    (folder / "model.safetensors").write_bytes(whole + b"x")
    assert refused(folder, tmp_path).file == "model.safetensors"


def test_a_flipped_bit_is_found_by_the_hash_of_the_manifest(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_bytes(manifest_for(folder))
    assert checked(folder, tmp_path)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    error = refused(folder, tmp_path)
    assert error.file == "model.safetensors" and "sha256" in error.why


def test_a_hash_is_checked_once_and_then_remembered(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_bytes(manifest_for(folder))
    seen: list[str] = []

    def progress(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
        seen.append(stage)

    hashes = HashCache(tmp_path / "cache")
    for _ in range(2):
        check(describe(folder), hashes, progress)
    assert seen == ["verify config.json", "verify model.safetensors", "verify tokenizer.json"]


def test_a_manifest_must_list_the_configuration(folder: Path, tmp_path: Path) -> None:
    listed = json.loads(manifest_for(folder))
    listed["files"] = [file for file in listed["files"] if file["name"] != "config.json"]
    (folder / "manifest.json").write_text(json.dumps(listed))
    error = refused(folder, tmp_path)
    assert error.file == "manifest.json" and "config.json" in error.why


@pytest.mark.parametrize(
    ("name", "content", "file"),
    [
        ("config.json", b"{", "config.json"),
        ("manifest.json", b"{", "manifest.json"),
        ("manifest.json", b'{"files": 5}', "manifest.json"),
        ("manifest.json", b'{"format": 9}', "manifest.json"),
        ("model.safetensors.index.json", b'{"weight_map": {"x": "gone.safetensors"}}', "gone.safetensors"),
        ("tokenizer_config.json", b"[]", "tokenizer_config.json"),
    ],
)
def test_damage_is_described_not_raised(folder: Path, tmp_path: Path, name: str, content: bytes, file: str) -> None:
    (folder / name).write_bytes(content)
    described = describe(folder)
    assert described.problem is not None and described.problem.file == file
    assert described.manifest["name"] == "m"
    assert refused(folder, tmp_path).file == file


def test_a_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    error = refused(folder, tmp_path)
    assert error.file == "tokenizer.json" and "leaves the model's folder" in error.why


def test_descriptions_are_remembered_until_something_changes(folder: Path, tmp_path: Path, make_model: Any) -> None:
    model = Store([Layer(folder, False)]).model(())
    assert model is not None
    describer = Describer()
    first = describer.describe(model, model.choose(""))
    assert describer.describe(model, model.choose("")) is first
    (folder / "config.json").write_text('{"architectures": ["Other"]}')
    assert describer.describe(model, model.choose("")).manifest["architecture"] == "Other"
    for number in range(KEPT + 1):
        store = Store([Layer(make_model(tmp_path / "many" / str(number)), False)])
        other = store.model(())
        assert other is not None
        describer.describe(other, other.choose(""))
    assert len(describer._known) <= KEPT

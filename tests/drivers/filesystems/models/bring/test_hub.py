"""Models of the hub, from a hub on this machine: which files, which revision, whose key, what goes on after a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from fake_hub import COMMIT, TOKEN, FakeHub, hub
from llmos.drivers.filesystems.models.bring import fetch as fetching
from llmos.drivers.filesystems.models.bring.hub import choose, parse
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.syscalls.errors import BadArgument, BadModel, Denied, Exists, NotFound, Unavailable
from system.model_folder import CONFIG, safetensors

OpenModels = Callable[..., ModelsFileSystem]
FILES = {
    "config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors(), "tokenizer.json": b"{}",
    "README.md": b"# Fox", "LICENSE": b"MIT", ".gitattributes": b"x", "pytorch_model.bin": b"pickle",
    "modeling_fox.py": b"import os", "consolidated.safetensors": safetensors(), "onnx/model.onnx": b"x",
}  # fmt: skip
TAKEN = {"config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(fetching, "PAUSE_S", 0.001)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub(FILES) as served:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
        yield served


def pull(
    system: ModelsFileSystem, source: str = "hf:acme/fox", path: str = "/fox", **options: Any
) -> Mapping[str, Any]:
    return system.bring(path, [source], {"options": options}, lambda *_said: None)


def test_safe_files_of_the_revision_come_and_nothing_else(fake: FakeHub, models: OpenModels, tmp_path: Path) -> None:
    system = models()
    answer = pull(system, revision="v2")
    assert (answer["version"], answer["files"]) == ("1", len(TAKEN)) and answer["fetched"] == fake.fetched
    folder = tmp_path / "models/fox/versions/1"
    assert {path.name for path in folder.iterdir()} == TAKEN | {"manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert (manifest["origin"], manifest["licence"]) == (f"hf:acme/fox@{COMMIT}", "mit")
    assert not any((tmp_path / "models/.llmos/partial").glob("*/*"))
    assert fake.seen[0][2]["Authorization"] == f"Bearer {TOKEN}"


def test_the_same_commit_again_fetches_nothing(fake: FakeHub, models: OpenModels, tmp_path: Path) -> None:
    system = models()
    pull(system)
    before = fake.fetched
    again = pull(system)
    assert (again["version"], again["unchanged"], fake.fetched) == ("1", True, before)
    folder = tmp_path / "models/mine"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(FILES[name])
    with pytest.raises(Exists):
        pull(models(), path="/mine")
    assert pull(models(), path="/mine", replace=True)["version"] == "1"


def test_after_an_interruption_only_the_rest_is_fetched(fake: FakeHub, models: OpenModels, tmp_path: Path) -> None:
    fake.files["model.safetensors"] = big = safetensors() + bytes(0)
    fake.files["tokenizer.json"] = b"[" + b"1," * 50_000 + b"1]"
    fake.breaks["model.safetensors"] = 10
    system = models()
    with pytest.raises(Unavailable, match="try again"):
        pull(system)
    assert not (tmp_path / "models/fox").exists()
    fake.breaks.clear()
    fake.sent.clear()
    answer = pull(models())
    assert answer["version"] == "1" and answer["fetched"] < len(fake.files["tokenizer.json"])
    assert (tmp_path / "models/fox/versions/1/model.safetensors").read_bytes() == big


def test_a_gated_model_needs_the_key(fake: FakeHub, models: OpenModels, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.gated = True
    pull(models())
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(Denied, match="restricted"):
        pull(models(), path="/other")


def test_a_wrong_hash_is_refused(fake: FakeHub, models: OpenModels, tmp_path: Path) -> None:
    fake.promised["model.safetensors"] = bytes(len(safetensors()))
    with pytest.raises(BadModel, match="not the content"):
        pull(models())
    assert not (tmp_path / "models/fox").exists()


def test_what_is_not_there_is_said(fake: FakeHub, models: OpenModels, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="Invalid rev id"):
        pull(models(), revision="v9")
    with pytest.raises(NotFound, match="Repository not found"):
        pull(models(), "hf:acme/wolf")


def cache(root: Path, files: Mapping[str, bytes]) -> Path:
    """What the library keeps of a model: blobs, and a folder of links to them for each commit."""
    place = root / "models--acme--fox"
    for name, content in files.items():
        blob, link = place / "blobs" / name.replace("/", "_"), place / "snapshots" / COMMIT / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(COMMIT)
    return place


def test_offline_the_cache_of_the_library_is_what_there_is(
    fake: FakeHub, models: OpenModels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(Unavailable, match=r"offline mode.*has nothing of main.*pull a folder"):
        pull(models())
    cache(tmp_path / "hub", FILES)
    answer = pull(models())
    assert (answer["version"], answer["files"], answer["fetched"]) == ("1", len(TAKEN), 0)
    folder = tmp_path / "models/fox/versions/1"
    assert {path.name for path in folder.iterdir()} == TAKEN | {"manifest.json"}
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert (folder / "model.safetensors").read_bytes() == safetensors()
    assert json.loads((folder / "manifest.json").read_bytes())["origin"] == f"hf:acme/fox@{COMMIT}"
    assert pull(models(), revision=COMMIT)["unchanged"] and not fake.seen
    with pytest.raises(Unavailable, match="has nothing of v2"):
        pull(models(), revision="v2", path="/other")


def test_offline_and_only_a_part_is_there(
    fake: FakeHub, models: OpenModels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cache(tmp_path / "hub", {"config.json": FILES["config.json"]})
    with pytest.raises(Unavailable, match=r"no safetensors of it, but config\.json"):
        pull(models())
    assert not (tmp_path / "models/fox").exists() and not fake.seen


def test_weights_that_are_pickles_are_not_fetched(fake: FakeHub, models: OpenModels) -> None:
    for name in ("model.safetensors", "consolidated.safetensors"):
        del fake.files[name]
    with pytest.raises(BadModel, match="only weights are a pickle"):
        pull(models())
    del fake.files["pytorch_model.bin"]
    with pytest.raises(BadModel, match="no safetensors"):
        pull(models())
    assert fake.fetched == 0


def test_names_that_lead_out_are_refused() -> None:
    with pytest.raises(BadModel, match="not a name inside"):
        choose([{"rfilename": "../../x.json"}], [])


def test_patterns_choose_files() -> None:
    siblings = [{"rfilename": name} for name in FILES]
    assert {each["rfilename"] for each in choose(siblings, ["*.safetensors", "config.json"])} == {
        "config.json", "model.safetensors", "consolidated.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "revision", "wanted"),
    [
        ("hf:a/b", "", ("a/b", "main")), ("hf:gpt2", "", ("gpt2", "main")), ("hf:a/b@v1", "", ("a/b", "v1")),
        ("hf:a/b", "refs/pr/1", ("a/b", "refs/pr/1")), ("hf:a/b@x", "x", ("a/b", "x")),
    ],
)  # fmt: skip
def test_names_of_the_hub(source: str, revision: str, wanted: tuple[str, str]) -> None:
    assert parse(source, revision) == wanted


@pytest.mark.parametrize(
    ("source", "revision"),
    [("hf:", ""), ("hf:../x", ""), ("hf:a/b/c", ""), ("hf:a/b", "../x"), ("hf:a/b@x", "y"), ("hf:a/b", "-x")],
)
def test_what_is_no_name(source: str, revision: str) -> None:
    with pytest.raises(BadArgument):
        parse(source, revision)

"""A job from its source to a version: whole or not at all, once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.contract import ModelSource
from llmos.drivers.filesystems.models.bring.job import Fillers, Meter
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.syscalls.errors import BadArgument, BadModel, Exists, NotSupported, ReadOnly

MakeModel = Callable[..., Path]
OpenModels = Callable[..., ModelsFileSystem]


def quiet(_done: int, _total: int, _unit: str = "", _stage: str = "") -> None:
    """Progress that nobody watches."""


def located(system: ModelsFileSystem, path: str) -> ModelSource:
    token, source = system.locate(path)
    system.release(token)
    return source


def bring(system: ModelsFileSystem, source: ModelSource | str, path: str = "/new", **options: Any) -> Mapping[str, Any]:
    return system.bring(path, [source], {"kind": "import", "options": options}, quiet)


def left(tmp_path: Path) -> list[Path]:
    """What is in the private part of the tree beside locks and books."""
    return list((tmp_path / "models/.llmos").glob("scratch/*"))


@pytest.fixture
def source(models: OpenModels, make_model: MakeModel, tmp_path: Path) -> ModelSource:
    make_model(tmp_path / "elsewhere/mine")
    return located(models(tmp_path / "elsewhere"), "/mine")


def test_a_folder_becomes_a_version(models: OpenModels, source: ModelSource, tmp_path: Path) -> None:
    system = models()
    answer = bring(system, source, "/acme/new")
    assert answer == {"files": 3, "bytes": sum(f.bytes for f in source.files), "fetched": 0, "unchanged": False,
                      "version": "1", "deduplicated_bytes": 0}  # fmt: skip
    found = located(system, "/acme/new")
    assert {file.name for file in found.files} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert all(file.path.read_bytes() == (tmp_path / "elsewhere/mine" / file.name).read_bytes() for file in found.files)
    assert all(entry["sha256"] for entry in found.manifest["files"]) and found.manifest["origin"] == "folder mine"
    assert left(tmp_path) == []


def test_the_same_again_is_no_new_version_and_another_one_asks(
    models: OpenModels, source: ModelSource, make_model: MakeModel, tmp_path: Path
) -> None:
    system = models()
    bring(system, source)
    for replace in (False, True):
        again = bring(system, source, replace=replace)
        assert (again["version"], again["unchanged"]) == ("1", True)
    for content in (b"[1]", b"[]"):  # of another size, of the same
        make_model(tmp_path / "elsewhere/other", {"tokenizer.json": content})
        other = located(models(tmp_path / "elsewhere"), "/other")
        with pytest.raises(Exists, match="--force"):
            bring(system, other)
    second = bring(system, other, replace=True)
    same = sum(file.bytes for file in source.files if file.name != "tokenizer.json")
    assert (second["version"], second["deduplicated_bytes"]) == ("2", same)
    assert bring(system, source, "/new@7")["version"] == "7"
    with pytest.raises(Exists):
        bring(system, other, "/new@7")
    assert left(tmp_path) == []


def test_of_two_jobs_at_once_the_second_finds_its_files_there(
    models: OpenModels, source: ModelSource, make_model: MakeModel, tmp_path: Path
) -> None:
    first, second = models(), models()
    while_copying: list[Mapping[str, Any]] = []

    def meanwhile(_done: int, _total: int, _unit: str = "", _stage: str = "") -> None:
        if not while_copying:
            while_copying.append({})
            while_copying.append(bring(second, source))

    answer = first.bring("/new", [source], {"options": {}}, meanwhile)
    assert (while_copying[1]["version"], answer["version"], answer["unchanged"]) == ("1", "1", True)
    make_model(tmp_path / "elsewhere/other", {"tokenizer.json": b"[1]"})
    other = located(models(tmp_path / "elsewhere"), "/other")
    while_copying.clear()

    def another(_done: int, _total: int, _unit: str = "", _stage: str = "") -> None:
        if not while_copying:
            while_copying.append(bring(second, source, "/twin"))

    with pytest.raises(Exists, match="/twin exists already"):
        first.bring("/twin", [other], {"options": {}}, another)
    assert left(tmp_path) == []


def test_manifests_keep_what_they_say_of_the_model(models: OpenModels, make_model: MakeModel, tmp_path: Path) -> None:
    said = {
        "format": 1,
        "licence": "mit",
        "origin": "there",
        "mood": "calm",
        "version": "9",
        "order": 9,
        "created": "x",
    }
    make_model(tmp_path / "elsewhere/mine", {"manifest.json": json.dumps(said).encode()})
    system = models()
    bring(system, located(models(tmp_path / "elsewhere"), "/mine"))
    manifest = located(system, "/new").manifest
    assert (manifest["licence"], manifest["origin"], manifest["mood"]) == ("mit", "there", "calm")
    assert (manifest["version"], manifest["order"], manifest["name"]) == ("1", 1, "new") and manifest["created"] != "x"


def test_a_new_version_gets_the_alias_and_the_licence_that_are_asked_for(
    models: OpenModels, source: ModelSource
) -> None:
    system = models()
    bring(system, source, alias="best", licence="mit")
    info = system.stat("/new@best")
    assert (info.version, info.fields["licence"]) == ("1", "mit")
    for alias in ("latest", "a b", ""):
        with pytest.raises(BadArgument):
            bring(system, source, "/other", alias=alias)
    system.close()


def test_files_that_are_not_those_of_the_manifest_are_refused(
    models: OpenModels, source: ModelSource, tmp_path: Path
) -> None:
    entries = [{"name": file.name, "bytes": file.bytes, "sha256": "0" * 64} for file in source.files]
    lying = ModelSource(source.path, source.version, source.files, {**source.manifest, "files": entries})
    system = models()
    with pytest.raises(BadModel, match="sha256 differs"):
        bring(system, lying)
    assert not (tmp_path / "models/new").exists() and left(tmp_path) == []


def test_what_is_asked_is_checked(models: OpenModels, source: ModelSource, tmp_path: Path) -> None:
    system = models()
    with pytest.raises(BadArgument, match="one model is brought"):
        system.bring("/new", [source, source], {}, quiet)
    with pytest.raises(BadArgument, match="did you mean 'replace'"):
        bring(system, source, replac=True)
    with pytest.raises(BadArgument, match="the option replace is 'yes'"):
        bring(system, source, replace="yes")
    with pytest.raises(BadArgument, match="dequantize is for single files"):
        bring(system, source, dequantize=True)
    with pytest.raises(NotSupported, match="nothing is brought from gopher"):
        bring(system, "gopher://x")
    with pytest.raises(BadArgument):
        bring(system, source, "/a/b/c")
    with pytest.raises(ReadOnly):
        bring(models("bundled"), source)
    assert not (tmp_path / "models/new").exists()


def test_the_filler_is_chosen_by_url_ending_or_none() -> None:
    def filler(name: str) -> Any:
        return name

    fillers = Fillers(filler("files"), {"hf:": filler("hub")}, {".gguf": filler("gguf")})
    from llmos.drivers.contract import SourceFile

    def of(*names: str) -> Any:
        return fillers.choose(ModelSource("/x", "1", [SourceFile(name, Path(name), 1) for name in names]))

    assert fillers.choose("hf:a/b") == "hub"
    assert (of("a.gguf"), of("a.gguf", "b"), of("config.json")) == ("gguf", "files", "files")


def test_progress_is_added_up() -> None:
    told: list[tuple[int, int, str, str]] = []
    meter = Meter(lambda *said: told.append(said), 10, "copy")
    meter.add(3)
    meter.add(7)
    assert told == [(0, 10, "bytes", "copy"), (3, 10, "bytes", "copy"), (10, 10, "bytes", "copy")]

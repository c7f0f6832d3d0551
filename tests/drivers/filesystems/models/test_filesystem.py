from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.drivers.filesystems.models.plugin import open_source
from llmos.drivers.filesystems.paths import PAGE
from llmos.syscalls.errors import (
    BadArgument, BadModel, Conflict, LlmosError, NotDirectory, NotFound, NotSupported, ReadOnly,
)  # fmt: skip


def read(system: Any, path: str) -> bytes:
    handle = system.open(path, "r")
    data: bytes = handle.read(0, handle.bytes)
    handle.close()
    return data


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_models_are_listed_with_what_they_are(models: Any, commit: Any, make_model: Any, tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "plain")
    system = models()
    commit(system, "/org/mine", {"licence": "MIT"})
    assert [(info.path, info.kind) for info in system.list("/")] == [("/org", "folder"), ("/plain", "model")]
    [mine] = system.list("/org")
    assert mine == system.stat("/org/mine")
    assert (mine.kind, mine.version, mine.bytes) == ("model", "1", system.list("/")[1].bytes)
    assert mine.mtime > 0
    created = mine.fields["created"]
    assert mine.fields == {
        "architecture": "LlamaForCausalLM", "tasks": ["text-generation"], "parameters": 9, "dtype": "float32",
        "quant": None, "context": 256, "tokenizer": "tokenizer.json", "chat_template": False, "licence": "MIT",
        "bytes_by_dtype": {"float32": 36, "bfloat16": 18, "int8": 12, "int4": 9},
        "created": created, "current": "1", "versions": ["1"], "aliases": {},
    }  # fmt: skip
    assert system.stat("/org").kind == system.stat("/").kind == "folder"


def test_a_damaged_model_is_listed_with_its_problem(models: Any, make_model: Any, tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "good")
    make_model(tmp_path / "models" / "bad", {"model.safetensors": b"short"})
    bad, good = models().list("/")
    assert "model.safetensors" in bad.fields["problem"] and bad.kind == "model"
    assert "problem" not in good.fields


def test_long_folders_come_in_pages(models: Any, tmp_path: Path) -> None:
    for number in range(PAGE + 3):
        (tmp_path / "models" / f"{number:05}").mkdir(parents=True)
        (tmp_path / "models" / f"{number:05}" / "file").touch()
    system = models()
    first = system.list("/")
    assert len(first) == PAGE
    assert [info.path for info in system.list("/", first[-1].path)] == ["/01000", "/01001", "/01002"]


def test_the_files_of_a_model_are_read(models: Any, commit: Any) -> None:
    system = models()
    commit(system, "/m", files={"deep/er/file": b"inner"})
    commit(system, "/m", files={"tokenizer.json": b"[2]"})
    listed = {info.path: (info.kind, info.bytes) for info in system.list("/m@1")}
    manifest = read(system, "/m@1/manifest.json")
    assert listed == {
        "/m@1/deep": ("folder", 0),
        "/m@1/manifest.json": ("file", len(manifest)),
        **{f"/m@1/{file['name']}": ("file", file["bytes"]) for file in json.loads(manifest)["files"][:1]},
        "/m@1/model.safetensors": ("file", len(read(system, "/m@1/model.safetensors"))),
        "/m@1/tokenizer.json": ("file", 2),
    }
    assert [info.path for info in system.list("/m@1/deep")] == ["/m@1/deep/er"]
    assert [info.path for info in system.list("/m@1/deep/er")] == ["/m@1/deep/er/file"]
    assert system.list("/m@1", "/m@1/tokenizer.json") == system.list("/m@1/deep", "/m@1/deep/z") == []
    assert (read(system, "/m@1/deep/er/file"), read(system, "/m/tokenizer.json")) == (b"inner", b"[2]")
    assert system.stat("/m@1/deep/er/file").bytes == 5 and system.stat("/m@1/deep").kind == "folder"
    handle = system.open("/m/config.json", "r", expected_version="2")
    assert (handle.version, handle.close()) == ("2", "2")
    with pytest.raises(Conflict) as caught:
        system.open("/m/config.json", "r", expected_version="1")
    assert caught.value.version == "2"


def test_a_plain_folder_has_a_manifest_too(models: Any, make_model: Any, tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "m")
    system = models()
    manifest = json.loads(read(system, "/m/manifest.json"))
    assert (manifest["name"], manifest["version"], manifest["parameters"]) == ("m", "local", 9)
    assert system.stat("/m/manifest.json").bytes == len(read(system, "/m/manifest.json"))
    assert "/m/manifest.json" in [info.path for info in system.list("/m")]
    assert not (tmp_path / "models" / "m" / "manifest.json").exists()


def test_a_stored_manifest_is_shown_as_it_is(models: Any, make_model: Any, tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "m", {"manifest.json": b'{"unknown":  "kept", "files": 5}'})
    assert read(models(), "/m/manifest.json") == b'{"unknown":  "kept", "files": 5}'


def test_what_is_not_there_is_said(models: Any, commit: Any) -> None:
    system = models()
    commit(system, "/org/m", files={"deep/file": b""})
    for path in ("/none", "/org/none", "/org/m@9", "/org/m/none", "/org/m/deep/none", "/org/m/config.json/x", "/n/n/n"):
        for action in (system.stat, system.list, lambda path: system.open(path, "r"), system.locate):
            with pytest.raises((NotFound, NotSupported)):
                action(path)
    for path in ("/org/m", "/org/m/deep"):
        with pytest.raises(BadArgument, match="folder"):
            system.open(path, "r")
    with pytest.raises(NotDirectory):
        system.list("/org/m/config.json")
    for path in ("/", "/org"):
        with pytest.raises(NotFound, match=r"folder of models, not a model; in it: org/m$"):
            system.locate(path)
        with pytest.raises(BadArgument, match="is a folder; a file is expected"):
            system.open(path, "r")


def test_a_folder_without_a_configuration_names_what_is_missing(models: Any, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "weights"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    for system, path in ((models(), "/weights"), (open_source(str(folder), {}), "/")):
        with pytest.raises(BadModel, match=rf"^{path} is not a model: it has no config\.json\.") as caught:
            system.locate(path)
        assert (caught.value.file, caught.value.why) == ("config.json", "is missing")


def test_nothing_inside_a_model_is_changed_in_place(models: Any, commit: Any) -> None:
    system = models()
    commit(system, "/m")
    for path in ("/m/config.json", "/m/new", "/new", "/m"):
        for mode in "wax":
            with pytest.raises(ReadOnly, match="new version"):
                system.open(path, mode)
    with pytest.raises(ReadOnly, match="part of a model"):
        system.remove("/m/config.json")
    with pytest.raises(BadArgument):
        system.open("/m/config.json", "z")


def test_a_model_is_located(models: Any, commit: Any, tmp_path: Path) -> None:
    system = models()
    commit(system, "/org/m")
    commit(system, "/org/m", {"metrics": {"loss": 1.5}})
    token, source = system.locate("/org/m")
    assert (source.path, source.version, source.manifest["metrics"]) == ("/org/m", "2", {"loss": 1.5})
    assert [file.name for file in source.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    for file in source.files:
        assert file.path == tmp_path / "models" / "org" / "m" / "versions" / "2" / file.name
        assert file.bytes == file.path.stat().st_size and file.offset == 0
    system.release(token)
    system.control("alias", {"name": "org/m", "alias": "prod", "version": "1"})
    for path, version, found in [("/org/m@1", "", "1"), ("/org/m", "1", "1"), ("/org/m", "prod", "1"),
                                 ("/org/m@prod", "1", "1"), ("/org/m@latest", "", "2")]:  # fmt: skip
        token, source = system.locate(path, version)
        system.release(token)
        assert source.version == found
    with pytest.raises(BadArgument, match="version 2"):
        system.locate("/org/m@1", "2")
    with pytest.raises(NotFound):
        system.locate("/org/m", "9")
    with pytest.raises(NotSupported):
        system.locate("/org/m/config.json")


def test_a_bad_model_is_refused_and_not_held(models: Any, make_model: Any, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "models" / "m")
    system = models()
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-3])
    with pytest.raises(BadModel, match=r"/m@local cannot be used: model.safetensors") as caught:
        system.locate("/m")
    assert caught.value.file == "model.safetensors" and "truncated" in caught.value.why
    (folder / "model.safetensors").write_bytes(weights)
    system.release(system.locate("/m")[0])
    system.remove("/m")


def test_a_single_folder_is_the_model_itself(models: Any, make_model: Any, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "my-model", {"deep/file": b"x"})
    before = tree(folder)
    system = models(folder)
    info = system.stat("/")
    assert (info.path, info.kind, info.version) == ("/", "model", "local")
    assert info.fields["architecture"] == "LlamaForCausalLM"
    assert [info.path for info in system.list("/")] == [
        "/config.json", "/deep", "/manifest.json", "/model.safetensors", "/tokenizer.json"
    ]  # fmt: skip
    assert read(system, "/deep/file") == b"x"
    token, source = system.locate("/")
    assert source.manifest["name"] == "my-model" and source.path == "/"
    system.release(token)
    assert [hit.path for hit in system.search("/", "llama", {}, 3)] == ["/"]
    assert tree(folder) == before  # a mounted folder is left as it was


def test_a_link_swapped_in_later_leads_nowhere(models: Any, make_model: Any, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "models" / "m")
    system = models()
    (tmp_path / "secret").write_text("x")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret")
    (folder / "alias.json").symlink_to("config.json")
    assert read(system, "/m/alias.json") == read(system, "/m/config.json")
    with pytest.raises(NotFound):
        system.open("/m/tokenizer.json", "r")
    with pytest.raises(BadModel):
        system.locate("/m")


def test_leftovers_of_a_killed_writer_are_swept_at_start(models: Any, tmp_path: Path) -> None:
    area = tmp_path / "models" / ".llmos" / "scratch"
    (area / "dead").mkdir(parents=True)
    (area / "dead.lock").touch()
    models()
    assert [*area.iterdir()] == []


NAMES = st.sampled_from(
    ["m", "org", "m@1", "m@prod", "..", ".", "", "@", "m@..", "\0", ".llmos", "versions", "1", "refs.json", "up",
     "config.json", "x" * 256, "ü", "manifest.json", "scratch", "lock"]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(NAMES, max_size=4))
def test_no_path_reaches_outside_or_into_the_private_part(tmp_path_factory: Any, make: Any, names: list[str]) -> None:
    base = make(tmp_path_factory)
    system = open_source(str(base / "models"), {"cache": str(base / "cache")})
    before = tree(base)
    path = "/" + "/".join(names)
    for action in (system.stat, system.list, system.locate, lambda path: read(system, path), system.stage):
        try:
            found = action(path)
        except LlmosError:
            continue
        assert b"secret" not in (found if isinstance(found, bytes) else b"")
        if isinstance(found, tuple):
            system.release(found[0])
    assert [entry for entry in tree(base) if not entry.startswith(("cache", "models/.llmos"))] == [
        entry for entry in before if not entry.startswith(("cache", "models/.llmos"))
    ]


@pytest.fixture(scope="module")
def make() -> Any:
    """Makes, once, a store beside a secret and returns their folder."""
    made: list[Path] = []

    def build(factory: Any) -> Path:
        if not made:
            base = factory.mktemp("base")
            version = base / "models" / "m" / "versions" / "1"
            version.mkdir(parents=True)
            (version / "manifest.json").write_text("{}")
            (version / "config.json").write_text("{}")
            (version / "up").symlink_to(base)
            (base / "models" / "org" / "m").mkdir(parents=True)
            (base / "models" / "org" / "m" / "config.json").write_text("{}")
            (base / "models" / ".llmos").mkdir()
            (base / "models" / ".llmos" / "lock").write_text("secret")
            (base / "config.json").write_text("secret")
            (base / "models" / "org" / "m" / "up").symlink_to(base / "config.json")
            made.append(base)
        return made[0]

    return build

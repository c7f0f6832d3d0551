from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.drivers.filesystems.models.plugin import BUNDLED_FOLDER, layers_of, open_source, register_filesystems
from llmos.drivers.filesystems.models.store import Layer
from llmos.syscalls.errors import BadArgument, NotFound


def test_a_source_is_one_folder_or_several(tmp_path: Path) -> None:
    for name in ("one", "two", "with:colon"):
        (tmp_path / name).mkdir()
    one, two, colon = (str(tmp_path / name) for name in ("one", "two", "with:colon"))
    assert layers_of(one) == [Layer(Path(one), True)]
    assert layers_of(colon) == [Layer(Path(colon), True)]
    assert layers_of(f"{one}:{two}:") == [Layer(Path(one), True), Layer(Path(two), False)]
    assert layers_of(f"{one}:bundled") == [Layer(Path(one), True), Layer(BUNDLED_FOLDER, False)]
    assert layers_of("bundled:") == [Layer(BUNDLED_FOLDER, False)]
    assert layers_of(f"{tmp_path}/new:bundled") == [Layer(tmp_path / "new", True), Layer(BUNDLED_FOLDER, False)]


@pytest.mark.parametrize(
    ("source", "kind"),
    [("", BadArgument), (":", BadArgument), ("models", BadArgument), ("/tmp:models", BadArgument),
     ("/no/such", NotFound), ("/tmp:/no/such", NotFound)],
)  # fmt: skip
def test_sources_that_cannot_be_served(source: str, kind: Any) -> None:
    with pytest.raises(kind) as caught:
        layers_of(source)
    assert source.rpartition(":")[2] in str(caught.value)


def test_settings(tmp_path: Path, make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadArgument, match=r"no setting 'colour'; known are cache$"):
        open_source(str(tmp_path), {"colour": 1})
    with pytest.raises(BadArgument, match=r"no setting 'cahce'; did you mean 'cache'\?"):
        open_source(str(tmp_path), {"cahce": 1})
    make_model(tmp_path / "models" / "m")
    monkeypatch.setenv("LLMOS_HOME", str(tmp_path / "home"))
    open_source(str(tmp_path / "models"), {}).control("fsck", {})
    assert len([*(tmp_path / "home" / "cache" / "models").glob("*.json")]) == 3
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["m"]


def test_the_plugin_registers_one_file_system(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    register_filesystems(found.__setitem__)
    assert [*found] == ["models"]
    assert isinstance(found["models"](str(tmp_path), {}), ModelsFileSystem)


def test_the_bundled_models_are_served_beside_ones_own(tmp_path: Path, make_model: Any) -> None:
    make_model(tmp_path / "mine")
    system = open_source(f"{tmp_path}:bundled", {"cache": str(tmp_path / "cache")})
    own = {"/mine"}
    shown = {info.path for info in system.list("/") if info.kind == "model"}
    bundled = {f"/{path.name}" for path in BUNDLED_FOLDER.iterdir()} if BUNDLED_FOLDER.is_dir() else set()
    assert shown >= own and shown - own <= bundled


def test_a_host_serves_models_and_its_leftovers_are_swept(host_of: Any, make_model: Any, tmp_path: Path) -> None:
    source = str(tmp_path / "models")
    make_model(tmp_path / "models" / "m")
    host = host_of("models")
    host.start(cache=str(tmp_path / "cache"))
    staged = host.call("stage", {"source": source, "path": "/org/mine"})
    make_model(Path(staged["path"]))
    commit = {"token": staged["token"], "manifest": {"licence": "MIT"}, "expected_version": ""}
    assert host.call("commit", commit) == {"version": "1"}
    entries = host.call("list", {"source": source, "path": "/"})
    assert [(entry["path"], entry["kind"]) for entry in entries] == [("/m", "model"), ("/org", "folder")]
    located = host.call("locate", {"source": source, "path": "/org/mine"})
    assert [file["name"] for file in located["files"]] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (located["version"], located["manifest"]["licence"]) == ("1", "MIT")
    removal = {"source": source, "path": "/org/mine"}
    assert host.call("remove", removal)["name"] == "Busy"
    make_model(Path(host.call("stage", {"source": source, "path": "/never"})["path"]))
    host.process.kill()
    host.process.wait()
    host.close()

    host = host_of("models")
    host.start(cache=str(tmp_path / "cache"))
    # What the killed host had located is free, and what it had staged is gone.
    assert host.call("remove", removal) == {}
    assert [*(tmp_path / "models" / ".llmos" / "scratch").iterdir()] == []
    (tmp_path / "models" / "m" / "model.safetensors").write_bytes(b"short")
    error = host.call("locate", {"source": source, "path": "/m"})
    assert (error["name"], error["fields"]["file"]) == ("BadModel", "model.safetensors")
    assert host.call("stat", {"source": source, "path": "/m"})["fields"]["problem"]

"""A folder that appears whole, or not at all."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.contract import ModelSource, SourceFile
from llmos.drivers.filesystems.files import open_source
from llmos.drivers.filesystems.scratch import Scratch
from llmos.syscalls.errors import BadArgument, BadModel, Exists, NoSpace, NotFound, NotSupported

RECIPE: dict[str, Any] = {"kind": "push", "options": {}}
FORCE: dict[str, Any] = {"kind": "push", "options": {"replace": True}}


def quiet(*_said: Any) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    (tmp_path / "from/inner").mkdir(parents=True)
    (tmp_path / "from/config.json").write_text("{}")
    (tmp_path / "from/inner/a.txt").write_text("inner")
    names = ("config.json", "inner/a.txt")
    files = [SourceFile(name, tmp_path / "from" / name, (tmp_path / "from" / name).stat().st_size) for name in names]
    return ModelSource("/fox", "3", files, {"licence": "mit"})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


def seen(tree: Path) -> list[str]:
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if ".llmos" not in path.parts)


def test_all_files_and_the_manifest_come(source: ModelSource, tree: Path) -> None:
    answer = open_source(str(tree), {}).bring("/copies/fox", [source], RECIPE, quiet)
    assert answer == {"version": "3", "files": 2, "bytes": 7}
    assert (tree / "copies/fox/inner/a.txt").read_text() == "inner"
    assert json.loads((tree / "copies/fox/manifest.json").read_text()) == {"licence": "mit"}
    assert list((tree / ".llmos/scratch").iterdir()) == []


def test_what_is_there_stays_unless_it_is_to_be_replaced(source: ModelSource, tree: Path) -> None:
    system = open_source(str(tree), {})
    (tree / "fox").mkdir()
    (tree / "fox/mine").write_text("old")
    with pytest.raises(Exists, match="--force"):
        system.bring("/fox", [source], RECIPE, quiet)
    with pytest.raises(Exists, match="holds no model"):
        system.bring("/fox", [source], FORCE, quiet)
    assert (tree / "fox/mine").read_text() == "old"
    (tree / "fox/config.json").write_text("{}")
    system.bring("/fox", [source], FORCE, quiet)
    assert seen(tree) == ["fox", "fox/config.json", "fox/inner", "fox/inner/a.txt", "fox/manifest.json"]
    assert list((tree / ".llmos/scratch").iterdir()) == []


def test_one_that_appears_meanwhile_is_not_replaced(source: ModelSource, tree: Path) -> None:
    def meanwhile(*_said: Any) -> None:
        (tree / "fox").mkdir(exist_ok=True)

    with pytest.raises(Exists):
        open_source(str(tree), {}).bring("/fox", [source], RECIPE, meanwhile)
    assert seen(tree) == ["fox"]


def test_a_full_disk_leaves_nothing(source: ModelSource, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "from/big").write_bytes(bytes(100_000))
    big = SourceFile("big", tmp_path / "from/big", 100_000)
    whole = ModelSource("/fox", "3", [*source.files, big])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(NoSpace):
            open_source(str(tree), {}).bring("/fox", [whole], RECIPE, quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert seen(tree) == [] and list((tree / ".llmos/scratch").iterdir()) == []


def test_names_that_lead_out_and_odd_requests_are_refused(source: ModelSource, tree: Path) -> None:
    system = open_source(str(tree), {})
    out = ModelSource("/fox", "3", [SourceFile("../x", source.files[0].path, 2)])
    with pytest.raises(BadModel, match="leads out"):
        system.bring("/fox", [out], RECIPE, quiet)
    with pytest.raises(BadArgument):
        system.bring("/fox", [source, source], RECIPE, quiet)
    with pytest.raises(BadArgument):
        system.bring("/fox", [source], {"options": {"colour": "red"}}, quiet)
    with pytest.raises(NotSupported):
        system.bring("/fox", ["hf:a/b"], RECIPE, quiet)
    assert seen(tree) == []
    assert Scratch(tree).sweep() == 0


def staged(tree: Path, path: str, files: dict[str, str], expected: str | None = "") -> None:
    """Stage, fill and commit."""
    system = open_source(str(tree), {})
    token, folder = system.stage(path)
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        assert system.commit(token, {"quant": "w4"}, expected) == ""
    finally:
        system.release(token)


def nothing_left(tree: Path) -> bool:
    return not list((tree / ".llmos/scratch").iterdir())


def test_a_staged_folder_appears_with_its_manifest(tree: Path) -> None:
    files = {"config.json": "{}", "deep/a.txt": "a"}
    staged(tree, "/out/model", files)
    assert (tree / "out/model/deep/a.txt").read_text() == "a" and nothing_left(tree)
    assert json.loads((tree / "out/model/manifest.json").read_text()) == {"quant": "w4"}
    assert (tree / "out/model/config.json").stat().st_mode & 0o777 == 0o644
    with pytest.raises(Exists):
        staged(tree, "/out/model", {"config.json": "new"})
    assert (tree / "out/model/config.json").read_text() == "{}" and nothing_left(tree)
    staged(tree, "/out/model", {"config.json": "new"}, None)
    assert (tree / "out/model/config.json").read_text() == "new" and nothing_left(tree)
    (tree / "home").mkdir()
    (tree / "home/letter.txt").write_text("dear")
    with pytest.raises(Exists, match="holds no model"):
        staged(tree, "/home", files, None)


def test_a_single_file_appears_where_the_name_has_its_ending(tree: Path) -> None:
    staged(tree, "/fox.gguf", {"model.gguf": "one"})
    assert (tree / "fox.gguf").read_text() == "one" and nothing_left(tree)
    with pytest.raises(Exists):
        staged(tree, "/fox.gguf", {"model.gguf": "two"})
    staged(tree, "/fox.gguf", {"model.gguf": "two"}, None)
    assert (tree / "fox.gguf").read_text() == "two"
    staged(tree, "/fox", {"model.gguf": "three"})
    assert (tree / "fox/model.gguf").read_text() == "three"
    (tree / "folder.gguf").mkdir()
    with pytest.raises(Exists, match="is no file"):
        staged(tree, "/folder.gguf", {"model.gguf": "four"}, None)
    assert nothing_left(tree)


def test_what_is_committed_or_released_is_gone(tree: Path) -> None:
    system = open_source(str(tree), {})
    token, folder = system.stage("/a/b")
    (folder / "x").write_text("x")
    system.release(token)
    assert not folder.exists() and not (tree / "a").exists()
    with pytest.raises(NotFound, match="staged"):
        system.commit(token, {})
    with pytest.raises(BadArgument):
        system.stage("/")

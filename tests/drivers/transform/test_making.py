"""A model made by a recipe: stored whole, with what it was made from, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stored_models import matrices, store, stored
from tiny_models import silent, source_of

from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.drivers.filesystems.models.plugin import open_source
from llmos.drivers.transform import kinds, making
from llmos.syscalls.errors import BadArgument, BadModel, Exists, NoSpace, NotSupported

MERGE = {"kind": "merge", "method": "linear", "weights": [], "options": {}}


@pytest.fixture
def system(tmp_path: Path) -> Iterator[ModelsFileSystem]:
    for number in range(2):
        store(tmp_path / f"models/m{number}", matrices(2, seed=number))
    found = open_source(str(tmp_path / "models"), {"cache": str(tmp_path / "cache")})
    assert isinstance(found, ModelsFileSystem)
    yield found
    found.close()


def made(system: ModelsFileSystem, path: str, **more: Any) -> dict[str, Any]:
    tokens, sources = zip(*(system.locate(f"/m{number}") for number in range(2)), strict=True)
    try:
        return making.make(system, path, sources, ["/models/m0@local", "/data/m1"], {**MERGE, **more}, silent)
    finally:
        for token in tokens:
            system.release(token)


def test_the_result_is_an_entry_with_lineage(system: ModelsFileSystem, tmp_path: Path) -> None:
    (tmp_path / "models/m0/manifest.json").write_text(json.dumps({"licence": "mit"}))
    recipe = {"weights": [1.0, 3.0], "options": {"normalize": True, "alias": "best"}}
    answer = made(system, "/new", **recipe)
    assert answer["version"] == "1" and answer["files"] == 2
    assert answer["metrics"] == {"method": "linear", "tensors": 2}
    folder = tmp_path / "models/new/versions/1"
    manifest = json.loads((folder / "manifest.json").read_text())
    said = json.dumps({"method": "linear", "normalize": True, "weights": [1.0, 3.0]}, sort_keys=True)
    assert manifest["parents"] == [
        {"path": "/models/m0", "version": "local", "how": "merged", "recipe": said},
        {"path": "/data/m1", "version": "local", "how": "merged", "recipe": said},
    ]
    assert manifest["licence"] == "mit" and manifest["metrics"]["tensors"] == 2 and len(stored(folder)) == 2
    fields = system.stat("/new").fields
    assert fields["aliases"] == {"best": "1"}
    assert fields["lineage"][0]["stored"] == "/m0@local"


def test_what_the_tensors_do_not_show_is_told_by_the_kind(
    system: ModelsFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = kinds.Kind("merge", "quantized", same=("parameters", "dtype"))
    monkeypatch.setitem(kinds.KINDS, "quantize", kind)  # type: ignore[arg-type]
    monkeypatch.setattr("llmos.drivers.transform.merge.run", _halved)
    quant = {"width": 4, "group": 0, "keep": [], "shift": False, "byte_budget": None}
    made(system, "/new", kind="quantize", method="", quant=quant)
    fields = system.stat("/new").fields
    assert (fields["parameters"], fields["dtype"], fields["quant"]) == (96, "float32", "w4")
    assert json.loads(fields["parents"][0]["recipe"]) == {"quant": {"width": 4, "group": 0}}
    assert len(fields["parents"]) == 1


def _halved(_sources: Any, _recipe: Any, folder: Path, _progress: Any) -> dict[str, Any]:
    store(folder, {"layer.0.numbers": torch.zeros(8, 3, dtype=torch.uint8)})
    return {"quant": "w4"}


def test_a_model_that_is_there_is_kept_unless_it_may_get_a_new_version(system: ModelsFileSystem) -> None:
    with pytest.raises(Exists, match="--force"):
        made(system, "/m0")
    assert made(system, "/m0", options={"replace": True})["version"] == "1"
    assert made(system, "/m0@second")["version"] == "second"
    with pytest.raises(Exists):
        made(system, "/m0@second")


@pytest.mark.parametrize(
    ("path", "alias", "error", "said"),
    [
        ("/new", "a/b", BadArgument, "cannot be an alias"), ("/new", "latest", BadArgument, "cannot be an alias"),
        ("/new", "1", BadArgument, "numbers that versions get"), ("/new", 7, BadArgument, "cannot be an alias"),
        ("/new@first", "first", Exists, "has a version first"), ("/m0@second", "local", Exists, "has a version local"),
    ],
)  # fmt: skip
def test_an_alias_that_cannot_be_is_refused_before_the_work(
    system: ModelsFileSystem, monkeypatch: pytest.MonkeyPatch, path: str, alias: Any, error: type[Exception], said: str
) -> None:
    monkeypatch.setattr(kinds, "find", lambda name: (kinds.KINDS[name], _never))
    with pytest.raises(error, match=said):
        made(system, path, options={"alias": alias})


def _never(*_given: Any) -> dict[str, Any]:
    raise AssertionError("it was begun")


def test_one_that_appears_meanwhile_is_kept_too(system: ModelsFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kinds.find("merge")[1]

    def slow(*given: Any) -> Any:
        monkeypatch.undo()
        made(system, "/new")
        return first(*given)

    monkeypatch.setattr("llmos.drivers.transform.merge.run", slow)
    with pytest.raises(Exists):
        made(system, "/new")
    assert system.stat("/new").version == "1"


def test_a_failure_leaves_nothing(
    system: ModelsFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "models/m1", matrices(2, rows=9))
    with pytest.raises(BadModel, match="cannot be merged"):
        made(system, "/new")
    monkeypatch.setattr("llmos.drivers.transform.merge.run", _full)
    with pytest.raises(NoSpace, match="/new"):
        made(system, "/new")
    assert not (tmp_path / "models/new").exists()
    assert not list((tmp_path / "models/.llmos/scratch").iterdir())


def _full(*_given: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_too_few_sources_and_places_that_store_nothing_are_refused(system: ModelsFileSystem, tmp_path: Path) -> None:
    source = source_of(tmp_path / "models/m0")
    with pytest.raises(BadArgument, match="at least 2 sources, 1 are given"):
        making.make(system, "/new", [source], ["/models/m0"], MERGE, silent)
    with pytest.raises(NotSupported):
        making.make(system, "/new", [source], ["/models/m0"], {"kind": "melt"}, silent)

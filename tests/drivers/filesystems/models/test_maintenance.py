from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models import hashes
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.syscalls.errors import BadArgument, BadModel, Busy, Exists, NotFound, NotSupported, ReadOnly

LOCATED = """
import sys
from llmos.drivers.filesystems.models.plugin import open_source
system = open_source(sys.argv[1], {"cache": sys.argv[2]})
print(system.locate("/m@1")[0], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def system(models: Any, commit: Any) -> ModelsFileSystem:
    """One model `/m` with the versions 1, 2 and 3."""
    found: ModelsFileSystem = models()
    for _ in range(3):
        commit(found, "/m")
    return found


def versions(system: ModelsFileSystem, path: str = "/m") -> list[str]:
    return [*system.stat(path).fields["versions"]]


def test_aliases_select_versions(system: ModelsFileSystem, models: Any) -> None:
    assert system.control("alias", {"name": "m", "alias": "prod", "version": "1"})["aliases"] == {"prod": "1"}
    system.control("alias", {"name": "/m", "alias": "next"})
    assert system.control("alias", {"name": "m", "alias": "copy", "version": "prod"})["aliases"]["copy"] == "1"
    assert (system.stat("/m@prod").version, system.stat("/m@next").version) == ("1", "3")
    assert models().stat("/m").fields["aliases"] == {"prod": "1", "next": "3", "copy": "1"}
    with pytest.raises(Busy, match="alias prod"):
        system.remove("/m@1")
    system.remove("/m@prod")
    system.control("alias", {"name": "m", "alias": "copy", "version": ""})
    system.remove("/m@1")
    assert versions(system) == ["2", "3"]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"name": "m", "alias": "a", "version": "9"}, NotFound),
        ({"name": "m", "alias": "a", "version": ""}, NotFound),
        ({"name": "none", "alias": "a"}, NotFound),
        ({"name": "m@1", "alias": "a"}, NotFound),
        ({"name": "m/config.json", "alias": "a"}, NotFound),
        ({"name": "m", "alias": "1"}, Exists),
        ({"name": "m", "alias": "latest"}, BadArgument),
        ({"name": "m", "alias": "no/slash"}, BadArgument),
        ({"name": "m", "alias": ""}, BadArgument),
        ({"name": "m", "alias": 5}, BadArgument),
        ({"name": "m"}, BadArgument),
        ({"alias": "a"}, BadArgument),
        ({"name": "../m", "alias": "a"}, BadArgument),
        ({"name": "m", "alias": "a", "colour": "red"}, BadArgument),
    ],
)
def test_aliases_that_cannot_be(system: ModelsFileSystem, options: dict[str, Any], kind: Any) -> None:
    with pytest.raises(kind):
        system.control("alias", options)
    assert system.stat("/m").fields["aliases"] == {}


def test_rollback_goes_back_step_by_step(system: ModelsFileSystem, models: Any, commit: Any) -> None:
    assert system.control("rollback", {"name": "m"}) == {"name": "/m", "version": "2", "was": "3"}
    assert models().stat("/m").version == "2"
    assert system.control("rollback", {"name": "m"})["version"] == "1"
    with pytest.raises(NotFound, match="first version"):
        system.control("rollback", {"name": "m"})
    # What is stored next is current, and going back from it leads to what was current before, not to 3.
    assert commit(system, "/m") == "4"
    assert system.stat("/m").version == "4"
    assert system.control("rollback", {"name": "m"})["version"] == "1"
    assert system.control("rollback", {"name": "m", "version": "3"})["version"] == "3"
    assert versions(system) == ["1", "2", "3", "4"]


def test_a_removed_version_is_gone_and_its_number_is_not_given_again(
    system: ModelsFileSystem, commit: Any, tmp_path: Path
) -> None:
    system.remove("/m@3")
    assert (versions(system), system.stat("/m").version) == (["1", "2"], "2")
    assert not (tmp_path / "models" / "m" / "versions" / "3").exists()
    assert commit(system, "/m") == "4"
    with pytest.raises(NotFound):
        system.remove("/m@3")
    assert [*(tmp_path / "models" / ".llmos" / "scratch").iterdir()] == []


def test_a_pinned_version_stays_current_when_others_go(system: ModelsFileSystem) -> None:
    system.control("rollback", {"name": "m", "version": "1"})
    system.remove("/m@3")
    assert system.stat("/m").version == "1"
    system.remove("/m@1")
    assert system.stat("/m").version == "2"


def test_a_model_is_removed_with_all_that_belongs_to_it(system: ModelsFileSystem, commit: Any, tmp_path: Path) -> None:
    commit(system, "/org/a")
    commit(system, "/org/b")
    system.control("alias", {"name": "m", "alias": "prod"})
    system.remove("/m")
    system.remove("/org/a@1")
    assert [info.path for info in system.list("/")] == ["/org"]
    with pytest.raises(Busy, match="not empty"):
        system.remove("/org")
    system.remove("/org/b")
    assert system.list("/") == []
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [".llmos"]
    for path in ("/m", "/org", "/org/b"):
        with pytest.raises(NotFound):
            system.remove(path)
    with pytest.raises(ReadOnly):
        system.remove("/")


def test_what_is_located_is_not_removed(system: ModelsFileSystem, tmp_path: Path) -> None:
    token, _ = system.locate("/m@1")
    again, _ = system.locate("/m@1")
    for path in ("/m@1", "/m"):
        with pytest.raises(Busy, match="in use"):
            system.remove(path)
    system.release(token)
    with pytest.raises(Busy):
        system.remove("/m@1")
    system.remove("/m@2")
    system.release(again)
    system.remove("/m@1")
    assert versions(system) == ["3"]


def test_nor_is_what_another_process_has_located_while_it_lives(system: ModelsFileSystem, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "models"), str(tmp_path / "cache")]
    with subprocess.Popen(
        [sys.executable, "-c", LOCATED, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None and reader.stdout.readline()
        with pytest.raises(Busy):
            system.remove("/m@1")
        assert system.control("gc", {"keep": 1})["removed"] == ["/m@2"]
        reader.send_signal(signal.SIGKILL)
        reader.wait()
    assert system.control("gc", {"keep": 1})["removed"] == ["/m@1"]


def test_a_plain_version_is_removed_and_the_others_stay(
    models: Any, commit: Any, make_model: Any, tmp_path: Path
) -> None:
    make_model(tmp_path / "models" / "m", {"deep/file": b"x", ".gitattributes": b"x"})
    system = models()
    commit(system, "/m")
    token, _ = system.locate("/m@local")
    with pytest.raises(Busy):
        system.remove("/m@local")
    system.release(token)
    system.remove("/m@local")
    assert versions(system) == ["1"]
    assert sorted(entry.name for entry in (tmp_path / "models" / "m").iterdir()) == ["refs.json", "versions"]


def test_a_read_only_layer_is_not_touched(models: Any, commit: Any, make_model: Any, tmp_path: Path) -> None:
    make_model(tmp_path / "low" / "m")
    system = models(tmp_path / "models", tmp_path / "low")
    for path in ("/m", "/m@local"):
        with pytest.raises(ReadOnly, match="read-only"):
            system.remove(path)
    # Aliases and rollbacks are kept in the writable layer.
    system.control("alias", {"name": "m", "alias": "base", "version": "local"})
    commit(system, "/m")
    assert system.control("rollback", {"name": "m"})["version"] == "local"
    system.control("alias", {"name": "m", "alias": "base", "version": ""})
    with pytest.raises(ReadOnly):
        system.remove("/m@local")
    system.remove("/m")
    assert versions(system) == ["local"]
    assert sorted(entry.name for entry in (tmp_path / "low" / "m").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json"
    ]  # fmt: skip


def test_a_read_only_source_takes_no_change(models: Any, make_model: Any, tmp_path: Path) -> None:
    single = make_model(tmp_path / "single")
    system = models(single)
    for action in (
        lambda: system.remove("/"),
        lambda: system.control("rollback", {"name": "/"}),
        lambda: system.control("alias", {"name": "/", "alias": "a"}),
    ):
        with pytest.raises(ReadOnly):
            action()
    assert system.control("fsck", {})["ok"]
    assert system.control("gc", {})["removed"] == []
    assert sorted(entry.name for entry in single.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_linked_model_is_changed_where_it_lies(models: Any, make_model: Any, tmp_path: Path) -> None:
    system = models()
    (tmp_path / "models" / "m").symlink_to(make_model(tmp_path / "elsewhere"))
    for action in (lambda: system.remove("/m"), lambda: system.control("alias", {"name": "m", "alias": "a"})):
        with pytest.raises(ReadOnly, match="link"):
            action()


def test_gc_keeps_the_newest_and_what_is_needed(
    system: ModelsFileSystem, commit: Any, make_model: Any, tmp_path: Path
) -> None:
    for _ in range(5):
        commit(system, "/m")
    commit(system, "/other")
    make_model(tmp_path / "models" / "damaged")
    (tmp_path / "models" / "damaged" / "refs.json").write_text("{")
    system.control("alias", {"name": "m", "alias": "prod", "version": "2"})
    system.control("rollback", {"name": "m", "version": "4"})
    token, _ = system.locate("/m@1")
    # All versions share their contents, so only the manifests of those that go are freed.
    kept = tmp_path / "models" / "m" / "versions"
    size = sum((kept / name / "manifest.json").stat().st_size for name in "356")
    done = system.control("gc", {"keep": 2})
    assert done["removed"] == ["/m@3", "/m@5", "/m@6"] and (done["bytes"], done["blobs"]) == (size, 0)
    assert versions(system) == ["1", "2", "4", "7", "8"]
    system.release(token)
    assert system.stat("/m").version == "4"
    assert system.control("gc", {"name": "m", "keep": 1})["removed"] == ["/m@1", "/m@7"]
    assert system.control("gc", {})["removed"] == []


@pytest.mark.parametrize("options", [{"keep": 0}, {"keep": "3"}, {"keep": True}, {"kept": 1}, {"name": 5}])
def test_gc_refuses_what_it_does_not_understand(system: ModelsFileSystem, options: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        system.control("gc", options)


def test_unknown_actions(system: ModelsFileSystem) -> None:
    with pytest.raises(NotSupported, match="defragment"):
        system.control("defragment", {})


def test_damaged_refs_stop_changes_and_loading_but_not_looking(system: ModelsFileSystem, tmp_path: Path) -> None:
    (tmp_path / "models" / "m" / "refs.json").write_text("[]")
    for action in (
        lambda: system.control("rollback", {"name": "m"}),
        lambda: system.remove("/m@1"),
        lambda: system.stage("/m"),
        lambda: system.locate("/m"),
    ):
        with pytest.raises(BadModel) as caught:
            action()
        assert caught.value.file == "refs.json"
    assert "refs.json" in system.stat("/m").fields["problem"]


def test_a_version_has_tags(system: ModelsFileSystem, models: Any) -> None:
    assert system.control("tag", {"name": "m", "tag": "good"}) == {"name": "/m", "version": "3", "tags": ["good"]}
    assert system.control("tag", {"name": "m", "tag": "good", "version": "1"})["tags"] == ["good"]
    assert system.control("tag", {"name": "m", "tag": "fast", "version": "1"})["tags"] == ["good", "fast"]
    assert system.control("tag", {"name": "m", "tag": "fast", "version": "1"})["tags"] == ["good", "fast"]
    assert models().stat("/m@1").fields["tags"] == ["fast", "good"]
    assert system.control("tag", {"name": "m", "tag": "good", "version": "1", "remove": True})["tags"] == ["fast"]
    for options, kind in (
        ({"tag": "good", "version": "1", "remove": True}, NotFound), ({"tag": "a b"}, BadArgument), ({}, BadArgument),
        ({"tag": "x", "version": "9"}, NotFound), ({"tag": "x", "remove": 1}, BadArgument),
    ):  # fmt: skip
        with pytest.raises(kind):
            system.control("tag", {"name": "m", **options})
    system.remove("/m@1")
    assert system.stat("/m").fields["tags"] == ["good"] and "tags" not in system.stat("/m@2").fields


def test_gc_keeps_what_a_kept_version_was_made_from(models: Any, commit: Any) -> None:
    system = models()
    for number in range(4):
        commit(system, "/base", {"parents": [{"path": "/base", "version": "1"}]} if number == 1 else {})
    for number in range(3):
        parents = {0: "1", 1: "2", 2: ""}[number]
        commit(system, "/org/child", {"parents": [{"path": "/models/base", "version": parents}] if parents else []})
    system.control("alias", {"name": "org/child", "alias": "prod", "version": "2"})
    # child@2 is named, so base@2, which it was made from, stays, and base@1, which that was made from.
    assert system.control("gc", {"keep": 1})["removed"] == ["/base@3", "/org/child@1"]
    system.control("alias", {"name": "org/child", "alias": "prod", "version": ""})
    token, _ = system.locate("/org/child@2")
    assert system.control("gc", {"keep": 1})["removed"] == [], "what is loaded needs it too"
    system.release(token)
    assert system.control("gc", {"keep": 1, "name": "base"})["removed"] == [], "child@2 is not to be cleared"
    assert system.control("gc", {"keep": 1})["removed"] == ["/base@1", "/base@2", "/org/child@2"]


def test_gc_frees_contents_that_nothing_has(models: Any, commit: Any, tmp_path: Path) -> None:
    system = models()
    for number in range(3):
        commit(system, "/m", files={"extra": b"%d" % number * 1000})
    token, folder = system.stage("/new")
    blobs = tmp_path / "models" / ".llmos" / "blobs"
    assert len([*blobs.glob("*/*")]) == 6
    done = system.control("gc", {"keep": 2})
    assert (done["removed"], done["blobs"]) == (["/m@1"], 1) and done["bytes"] > 1000
    assert len([*blobs.glob("*/*")]) == 5 and folder.is_dir()
    system.release(token)
    system.remove("/m")
    assert system.control("gc", {})["blobs"] == 5 and [*blobs.glob("*/*")] == []


def test_a_removed_version_costs_the_others_no_reading(
    models: Any, commit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = models()
    for _ in range(2):
        commit(system, "/m")
    commit(system, "/copy")
    system.remove("/copy")
    system.remove("/m@1")
    monkeypatch.setattr(hashes, "sha256_of", None)
    token, _ = system.locate("/m")
    system.release(token)


@pytest.mark.parametrize(
    "options",
    [{"device": "cpu0", "values": {}}, {"values": {"quality": 1}}, {"device": 5, "values": {"quality": 1}},
     {"device": "cpu0", "values": {"quality": 1}, "version": 1}],
)  # fmt: skip
def test_measures_that_are_none(system: ModelsFileSystem, options: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        system.control("measure", {"name": "m", **options})


@pytest.mark.parametrize("repair", [1, "yes", None])
def test_repair_is_a_flag(system: ModelsFileSystem, repair: Any) -> None:
    with pytest.raises(BadArgument, match="repair"):
        system.control("fsck", {"repair": repair})

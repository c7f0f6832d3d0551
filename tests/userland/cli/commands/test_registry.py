"""pull, push, and cp of whole models: on a real kernel with real workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from system.model_folder import write_model

from llmos.userland.cli.commands.registry import default_name


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    write_model(folder / "mine")
    return folder


@pytest.fixture
def gone(system: Any) -> Any:
    """Models that a test brings, by name; they are removed at its end."""
    names: list[str] = []
    yield names.append
    for name in names:
        system.remove(f"/models/{name}")


def test_a_folder_is_pulled_under_its_own_name(llmos: Any, system: Any, gone: Any) -> None:
    gone("mine")
    ran = llmos("pull ./mine")
    assert (ran.status, ran.out) == (0, "/models/mine@1: 2 files, 173 B\n")
    assert system.stat_path("/models/mine").fields["origin"] == "folder mine"
    for line in ("pull ./mine", "pull ./mine --force"):
        assert llmos(line).out == "/models/mine@1 is this model already\n"
    write_model(Path("mine"), mood="new")
    (Path("mine") / "notes.txt").write_text("more")
    ran = llmos("pull ./mine")
    assert ran.status == 1 and "/models/mine exists already" in ran.err and "--force" in ran.err
    assert "/models/mine@2: 3 files" in llmos("pull ./mine --force").out


def test_json_is_progress_and_then_the_result(llmos: Any, gone: Any) -> None:
    gone("acme")
    lines = [json.loads(line) for line in llmos("pull ./mine /models/acme/fox --json").out.splitlines()]
    assert {"done", "total", "unit", "stage"} == set(lines[0]) and lines[0]["total"] == 173
    assert (lines[-1]["state"], lines[-1]["value"]["path"]) == ("done", "/models/acme/fox")
    llmos("rm /models/acme/fox")
    gone_folder = llmos("ls /models/acme")
    assert gone_folder.status == 1
    llmos("pull ./mine /models/acme")


def test_detached_it_goes_on_by_itself(llmos: Any, gone: Any) -> None:
    gone("later")
    task = llmos("pull ./mine /models/later --detach --json").json
    assert task["kind"] == "import"
    assert llmos(f"wait {task['id']}").status == 0
    assert llmos("show /models/later").status == 0


def test_tasks_say_what_they_bring_and_wait_says_why_not(llmos: Any) -> None:
    task = llmos("pull hf:../x /models/x --detach --json").json
    ran = llmos(f"wait {task['id']}")
    assert ran.status == 1 and "names no model of the hub" in ran.err
    assert llmos(f"wait {task['id']} --json").json["value"]["error"]["name"] == "BadArgument"
    assert "import /models/x" in llmos("tasks").out


def test_what_cannot_be_pulled_is_said(llmos: Any, here: Path) -> None:
    (here / "empty").mkdir()
    ran = llmos("pull ./empty")
    assert ran.status == 1 and "config.json" in ran.err and "./empty" in ran.err and "/mnt" not in ran.err
    ran = llmos("pull ./mine --dequantize")
    assert ran.status == 1 and "dequantize is for single files" in ran.err
    ran = llmos("pull ftp://x/y")
    assert ran.status == 1 and "ftp://x/y: nothing is brought from there" in ran.err
    ran = llmos("pull http://otherhost:7411")
    assert ran.status == 1 and "write http://otherhost:7411/models/NAME" in ran.err
    ran = llmos("pull mine")
    assert ran.status == 1 and "write ./mine for a folder, hf:mine" in ran.err
    ran = llmos("pull hf:../x /models/x")
    assert ran.status == 1 and "names no model of the hub" in ran.err
    ran = llmos("pull ./nothing")
    assert ran.status == 1 and "there is no folder" in ran.err
    assert llmos("pull gopher:x /models/x").status == 1


def test_cp_of_a_model_is_an_import(llmos: Any, gone: Any) -> None:
    gone("copy")
    assert llmos("cp /models/null /models/copy").status == 0
    (Path("mine") / "notes.txt").write_text("more")
    ran = llmos("cp ./mine /models/copy")
    assert ran.status == 1 and "exists already" in ran.err
    assert llmos("pull ./mine /models/copy@7").out.startswith("/models/copy@7: 3 files")


def test_a_model_is_pushed_into_a_folder_and_back(llmos: Any, here: Path, gone: Any) -> None:
    gone("back")
    ran = llmos("push two@v1 ./copies/two")
    assert ran.status == 0 and ran.out.endswith("/copies/two: 2 files, 173 B\n")
    assert {"config.json", "model.safetensors", "manifest.json"} == {p.name for p in (here / "copies/two").iterdir()}
    assert "exists already; --force replaces it" in llmos("push two ./copies/two").err
    (here / "copies/two/more").write_text("x")
    assert llmos("push two ./copies/two --force").status == 0 and not (here / "copies/two/more").exists()
    assert "holds no model" in llmos("push two ./copies --force").err
    assert llmos("pull ./copies/two /models/back").status == 0


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("./mine", "mine"), ("~/a/fox-7.gguf", "fox-7"), ("hf:acme/Fox@main", "acme/Fox"), ("/models/o/x@2", "x"),
        ("http://h:1/models/acme/fox@2", "acme/fox"), ("llmos+https://h/models/fox", "fox"), ("file:/srv/m/", "m"),
    ],
)  # fmt: skip
def test_default_names(source: str, name: str) -> None:
    assert default_name(source) == name


def test_a_version_gets_tags_and_loses_them(llmos: Any) -> None:
    assert llmos("tag two@v1 tested").out == "/models/two@v1 has tested\n"
    assert llmos("tag two@v1 fast --json").json["fields"]["report"]["tags"] == ["tested", "fast"]
    assert "tags" in llmos("show two@v1").out
    assert llmos("tag two@v1 fast --remove").out == "/models/two@v1 has tested\n"
    assert llmos("tag two@v1 tested --remove").out == "/models/two@v1 has no tags\n"
    ran = llmos("tag two tested --remove")
    assert ran.status == 1 and "/two@v2 has no tag tested; it has none" in ran.err

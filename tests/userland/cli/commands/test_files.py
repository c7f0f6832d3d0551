"""ls, cat, cp, rm, mount, umount, search: on a real kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from system.model_folder import write_model


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_ls_and_odd_paths(llmos: Any, here: Path) -> None:
    assert "null" in llmos("ls").out
    assert llmos("ls /").out.split() == ["dev/", "home/", "models/", "proc/", "sys/"]
    assert "KIND" in llmos("ls -l /models").out
    assert {entry["path"] for entry in llmos("ls --json").json} >= {"/models/null", "/models/two"}
    assert llmos("ls /sys/version").out == "version\n"
    ran = llmos("ls /nothing")
    assert ran.status == 1 and "/nothing" in ran.err
    for line in ("ls home", "cat a", "rm a", "cp a /home/b", "cp ./a.txt b", "search a b", "fsck a"):
        (here / "a.txt").write_text("a")
        assert "is no path: write /" in llmos(line).err, line


def test_files_go_in_and_out(llmos: Any, here: Path) -> None:
    (here / "a.txt").write_text("hello\n")
    assert llmos("cp ./a.txt /home/a.txt").status == 0
    assert llmos("cat /home/a.txt").out == "hello\n"
    assert llmos("cat /home/a.txt --json").json == {"path": "/home/a.txt", "data": "hello\n"}
    ran = llmos("cp ./a.txt /home/a.txt")
    assert ran.status == 1 and "exists; say --force" in ran.err
    assert llmos("cp ./a.txt /home/a.txt --force").status == 0
    assert llmos("cp /home/a.txt /home/b.txt").status == 0
    assert llmos("cp /home/b.txt ./b.txt").status == 0
    assert (here / "b.txt").read_text() == "hello\n"
    ran = llmos("cp /home/b.txt ./b.txt")
    assert ran.status == 1 and "--force" in ran.err
    for name in ("a", "b"):
        assert llmos(f"rm /home/{name}.txt").out == f"/home/{name}.txt is removed\n"
    assert llmos("cat /home/a.txt").status == 1


def test_a_model_is_copied_out_whole(llmos: Any, here: Path) -> None:
    assert llmos("cp /models/two@v1 ./out").status == 0
    assert {"config.json", "model.safetensors"} <= {path.name for path in (here / "out").iterdir()}
    (here / "into").mkdir()
    assert llmos("cp /models/null ./into").status == 0
    assert (here / "into/null/config.json").is_file()


def test_both_on_this_machine_is_no_work_for_us(llmos: Any, here: Path) -> None:
    (here / "a").write_text("x")
    assert "its own cp" in llmos("cp ./a ./b").err


def test_a_model_in_use_is_removed_only_by_force(llmos: Any, system: Any) -> None:
    write_model(Path(system.stat().fields["home"]) / "models/spare")
    system.load_model("/models/spare", device="null0")
    ran = llmos("rm /models/spare")
    assert ran.status == 1 and len(system.models()) == 1
    assert llmos("rm /models/spare --force").status == 0
    assert system.models() == [] and llmos("rm /models/spare").status == 1


def test_mounts(llmos: Any, here: Path) -> None:
    write_model(here / "m/one")
    ran = llmos("mount ./m /models/more")
    assert ran.status == 0 and "ends with this command" in ran.err
    assert "/models" in llmos("mount").out
    assert {mount["name"] for mount in llmos("mount --json").json} >= {"/models", "/home"}
    assert "no mount is called" in llmos("umount /models/more").err


def test_search_says_what_was_found_and_why(llmos: Any, system: Any) -> None:
    ran = llmos("search /models")
    assert ran.status == 0 and all(name in ran.out for name in ("PATH", "WHY", "/models/tiny", "/models/null"))
    assert llmos("search /models zebra").out == "nothing was found\n"
    [hit] = llmos("search /models tiny --task text-generation --max-size 1GiB --licence apache-2.0 --json").json
    assert hit["path"] == "/models/tiny"
    assert hit["reason"].startswith('its name is "tiny"; task text-generation; licence apache-2.0; at most 1.0 GiB; ')
    assert "fits on null0: " in llmos("search /models --fits null0").out
    assert "fits: there is no device 'cuda9'" in llmos("search /models --fits cuda9").err
    assert "4GiB" in llmos("search /models --max-size large").err
    found = [hit["path"] for hit in llmos("search /models --sort size --json").json]
    assert found[-1] == "/models/tiny" and len(found) > 2
    assert llmos("search /models --sort name --architecture llama --language en -n 1 --json").status == 0


def test_what_requests_have_shown_is_found(llmos: Any, system: Any) -> None:
    model = system.load_model("/models/null", device="null0")
    assert len([*model.infer_stream("one two three", max_tokens=8)]) > 1
    model.unload()
    [first, *_] = llmos("search /models --sort speed --json").json
    assert first["path"] == "/models/null" and "tokens/s measured on null0" in first["reason"]
    assert first["fields"]["measured"]["null0"]["first_token_s"] > 0
    assert "measured" in llmos("show /models/null").out


def test_search_of_what_is_not_searchable(llmos: Any) -> None:
    assert llmos("search /home words").status == 1

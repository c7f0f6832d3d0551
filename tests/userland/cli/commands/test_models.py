"""show, load, unload, sleep, wake, pin, keep-alive, swap, alias, rollback, fsck, gc: on a real kernel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from system.model_folder import write_model, write_versions

from llmos.syscalls.wire import Progress
from llmos.userland.cli.commands.models import amount


@pytest.mark.parametrize("name", ["/models/null", "null"])
def test_load_and_unload(llmos: Any, name: str) -> None:
    ran = llmos(f"load {name} --device null0 --name fox --keep-alive 10m --max-context 64")
    assert (ran.status, ran.out.split()[0]) == (0, "fox") and "null0" in ran.out
    info = llmos("stat fox --json").json
    assert info["fields"]["keep_alive"] == 600 and info["fields"]["context"] == 64
    assert "is unloaded" in llmos("unload fox").out
    assert llmos("ps --json").json == []


def test_load_answers_json_and_a_plan_loads_nothing(llmos: Any) -> None:
    assert llmos("load null --device null0 --dry-run --json").json["plan"]["fits"] is True
    assert "fits on null0" in llmos("load null -d null0 -n").out
    assert llmos("ps --json").json == []
    assert llmos("load null -d null0 --json").json["device"] == "null0"


def test_a_plan_says_what_would_have_to_sleep_and_what_is_missing(llmos: Any, system: Any) -> None:
    ran = llmos("show null --plan null0")
    assert "null fits on null0" in ran.out and "weights" in ran.out
    need = llmos("show null --plan null0 --json").json["plan"]["needed"]
    system.load_model("/models/null", device="null0", name="fox")
    free = system.plan_model("/models/null", device="null0").plan.free
    with system.lease(free - need // 2, device="null0"):
        ran = llmos("show null --plan null0")
        assert "null fits after 1 eviction on null0: needs " in ran.out
        assert "would have to sleep for it:" in ran.out and "fox" in ran.out and "BACK IN" in ran.out
        system.model("fox").pin()
        ran = llmos("load null -d null0 -n")
        assert "does not fit" in ran.out and "are missing whatever sleeps" in ran.out
        assert "what would help: --quant w8 or w4" in ran.out


def test_a_draft_model_is_looked_for_and_prefixes_may_be_kept_apart(llmos: Any) -> None:
    ran = llmos("load null -d null0 --draft /models/nothing")
    assert ran.status == 1 and "/models/nothing" in ran.err
    assert llmos("load null -d null0 --no-prefix-cache").status == 0


def test_the_format_of_keys_and_values_reaches_the_device(llmos: Any) -> None:
    ran = llmos("load null -d null0 --kv-dtype int8")
    assert ran.status == 1 and "kv_dtype is 'int8'" in ran.err
    assert llmos("load null -d null0 --kv-dtype auto").status == 0


def test_a_folder_of_this_machine_is_loaded(llmos: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(folder / "mine")
    monkeypatch.chdir(folder)
    assert llmos("load ./mine -d null0").status == 0
    ran = llmos("load ./nothing")
    assert ran.status == 1 and f"there is no folder {folder}/nothing" in ran.err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("sleep fox", "fox is asleep"), ("wake fox", "fox is awake"), ("pin fox", "pinned"), ("unpin fox", "evicted"),
        ("keep-alive fox 90s", "for 1 m 30 s"), ("keep-alive fox forever", "for ever"),
    ],
)  # fmt: skip
def test_actions_on_a_loaded_model(llmos: Any, system: Any, command: str, says: str) -> None:
    system.load_model("/models/null", device="null0", name="fox")
    ran = llmos(command)
    assert (ran.status, says in ran.out) == (0, True)


def test_an_action_answers_json(llmos: Any, system: Any) -> None:
    system.load_model("/models/null", device="null0", name="fox")
    assert llmos("pin fox --json").json["fields"]["pinned"] is True


def test_an_unknown_model_is_named_with_those_there_are(llmos: Any, system: Any) -> None:
    system.load_model("/models/null", device="null0", name="fox")
    ran = llmos("unload wolf")
    assert ran.status == 1 and "'wolf'; there is fox" in ran.err
    ran = llmos("sleep wolf --json")
    assert '"name": "NotFound"' in ran.err and '"code": 25' in ran.err and ran.out == ""


def test_show_tells_of_the_stored_and_the_loaded_model(llmos: Any, system: Any) -> None:
    assert "loaded as" not in llmos("show null").out
    system.load_model("/models/null", device="null0", name="fox")
    ran = llmos("show null")
    assert "architecture" in ran.out and "loaded as fox" in ran.out
    assert "served by rung F; not by a higher one because:\n  the null device" in ran.out
    assert set(llmos("show /models/null --json").json) == {"entry", "loaded", "report"}
    assert llmos("show nothing").status == 1


def test_versions_aliases_and_rollback(llmos: Any, system: Any) -> None:
    assert llmos("alias two@v1 stable").status == 0
    assert system.stat_path("/models/two@stable").version == "v1"
    assert "stable=v1\n" in llmos("show two").out
    assert "version v1 again" in llmos("rollback two").out
    assert system.stat_path("/models/two").version == "v1"
    system.load_model("/models/two@v1", device="null0", name="two")
    assert llmos("swap two v2").status == 0
    assert llmos("stat two --json").json["fields"]["version"] == "v2"
    assert llmos("rollback two@v2").out == "/models/two is version v2 again\n"
    assert system.stat_path("/models/two").version == "v2"


def test_fsck_tells_what_it_found(llmos: Any, system: Any) -> None:
    home = Path(system.stat().fields["home"])
    write_model(home / "models/org/bad")
    (home / "models/org/bad/model.safetensors").write_bytes(b"")
    try:
        ran = llmos("fsck /models")
        assert ran.status == 1 and ran.out.splitlines()[0].endswith("read: 1 problem")
        assert ran.out.splitlines()[2].startswith("/models/org/bad  local    model.safetensors  ")
        assert llmos("fsck /models/org").status == llmos("fsck /models/org/bad").status == 1
        ran = llmos("fsck /models --json")
        assert ran.status == 1 and ran.json["fields"]["report"]["problems"][0]["path"] == "/org/bad"
        sound = llmos("fsck /models/two").out
        assert sound == "fsck of /models/two: 1 model, 2 versions, 6 files, 346 B read: nothing is wrong\n"
    finally:
        shutil.rmtree(home / "models/org")
    assert "the index was made anew" not in llmos("fsck /models").out
    ran = llmos("fsck /nowhere/at/all")
    assert ran.status == 1 and "nothing is mounted at" in ran.err


def test_fsck_says_what_it_mended(llmos: Any, system: Any, folder: Path) -> None:
    write_model(folder / "source")
    assert llmos(f"pull file:{folder}/source /models/mended").status == 0
    home = Path(system.stat().fields["home"])
    (home / "models/mended/versions/1/config.json").unlink()
    assert llmos("fsck /models").status == 1
    said = llmos("fsck /models --repair").out.splitlines()
    assert said[1] == "repaired: config.json of /models/mended@1, from its blob"
    assert said[0].endswith("nothing is wrong")
    assert llmos("rm /models/mended").status == 0


def test_show_tells_where_a_model_comes_from(llmos: Any, system: Any) -> None:
    home = Path(system.stat().fields["home"])
    parents = [{"path": "/models/two", "version": "v1", "how": "finetune", "recipe": "lora r=8"}, {"path": "hub/far"}]
    write_model(home / "models/child", parents=parents, signature="x", tags=["small"], bytes_by_dtype={"int8": 2048})
    said = " ".join(llmos("show child").out.split())
    assert "finetune of /models/two@v1, stored as /two@v1, recipe lora r=8 made of hub/far" in said
    assert "int8 2.0 KiB" in said and "unverified" in said and "tags small" in said
    assert "children /child@local" in " ".join(llmos("show two@v1").out.split())
    assert llmos("rm /models/child").status == 0


def test_gc_leaves_what_is_loaded(llmos: Any, system: Any) -> None:
    home = Path(system.stat().fields["home"])
    write_versions(home / "models/busy", *"12345")
    model = system.load_model("/models/busy@1", device="null0")
    assert llmos("gc /models/busy").out.splitlines()[1:] == ["  /models/busy@2"]
    model.unload()
    assert llmos("gc /models/busy").out.splitlines()[1:] == ["  /models/busy@1"]
    assert llmos("rm /models/busy").status == 0


def test_gc_tells_what_it_removed(llmos: Any, system: Any) -> None:
    home = Path(system.stat().fields["home"])
    llmos("gc /models")  # what other tests left
    write_versions(home / "models/old", *"12345")
    assert llmos("gc /models/two").out == "gc of /models/two: 0 versions and 0 blobs removed, 0 B freed\n"
    ran = llmos("gc /models")
    assert (ran.status, ran.out.splitlines()[1:]) == (0, ["  /models/old@1", "  /models/old@2"])
    assert ran.out.startswith("gc of /models: 2 versions and 0 blobs removed, ")
    assert llmos("gc /models --json").json["fields"]["report"]["removed"] == []


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (Progress(done=0), ""), (Progress(done=1 << 20, total=1 << 21, unit="bytes"), "1.0 MiB of 2.0 MiB"),
        (Progress(done=3, total=4), "3 of 4"), (Progress(done=3), "3"),
    ],
)  # fmt: skip
def test_how_far_work_has_come(progress: Progress, said: str) -> None:
    assert amount(progress) == said

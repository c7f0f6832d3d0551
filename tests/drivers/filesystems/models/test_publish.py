from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.syscalls.errors import BadArgument, BadModel, Conflict, Exists, NotDirectory, NotFound, ReadOnly

# For N = 1, 2, ...: a process that ends itself before the Nth change to the disk that a commit makes, each in a copy of
# the same store; until one gets through.
KILLED = """
import os, shutil, signal, sys
from itertools import count
from llmos.drivers.filesystems.models.plugin import open_source
before, copies, cache, path, template = sys.argv[1:]

def commit(root, last):
    system = open_source(root, {"cache": cache})
    system.search("/", "", {}, 5)  # there is an index of what was before
    token, folder = system.stage(path)
    shutil.copytree(template, folder, dirs_exist_ok=True)
    changes = count(1)
    def watch(event, args):
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.chmod"):
            if next(changes) == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    system.commit(token, {"mood": "new"}, None)

for last in count(1):
    root = os.path.join(copies, f"{last:03}")
    shutil.copytree(before, root)
    child = os.fork()
    if child == 0:
        commit(root, last)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert status == signal.SIGKILL, status
"""
MANY = """
import shutil, sys
from llmos.drivers.filesystems.models.plugin import open_source
from llmos.syscalls.errors import Conflict
models, cache, template = sys.argv[1:]
system = open_source(models, {"cache": cache})
done = 0
while done < 6:
    before = system.stat("/m").version
    token, folder = system.stage("/m")
    shutil.copytree(template, folder, dirs_exist_ok=True)
    try:
        system.commit(token, {"before": before}, before)
    except Conflict:
        system.release(token)
        continue
    done += 1
"""
FULL = """
import sys
from pathlib import Path
from llmos.drivers.filesystems.models.plugin import open_source
from llmos.syscalls.errors import NoSpace
system = open_source(sys.argv[1], {"cache": sys.argv[1] + "/cache"})
token, folder = system.stage("/m")
(folder / "config.json").write_text("{}")
(folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
blob = folder / "blob"
try:
    blob.write_bytes(bytes(1 << 20))
except OSError:
    pass
try:
    system.commit(token, {"card": "x" * 100_000}, None)
except NoSpace as error:
    print(error)
blob.unlink()
print(system.commit(token, {}, None), system.control("fsck", {})["ok"])
"""


def bytes_of(system: ModelsFileSystem, path: str) -> bytes:
    handle = system.open(path, "r")
    data = handle.read(0, handle.bytes)
    handle.close()
    return data


def scratch(root: Path) -> list[Path]:
    return [*(root / ".llmos" / "scratch").iterdir()]


def test_a_staged_folder_becomes_a_version(models: Any, make_model: Any, tmp_path: Path) -> None:
    system = models()
    token, folder = system.stage("/org/mine")
    assert folder.is_dir() and not any(folder.iterdir())
    make_model(folder, {"onnx/extra": b"12"})
    assert system.list("/") == []
    assert system.commit(token, {"parents": [{"path": "/tiny", "version": "1", "how": "lora"}], "mood": 7}) == "1"
    assert not folder.exists() and scratch(tmp_path / "models") == []
    manifest = json.loads(bytes_of(system, "/org/mine/manifest.json"))
    created = manifest.pop("created")
    assert created.endswith("Z")
    entry = {"name": "onnx/extra", "bytes": 2, "sha256": hashlib.sha256(b"12").hexdigest()}
    assert entry in manifest.pop("files")
    assert manifest == {
        "format": 1, "name": "org/mine", "version": "1", "order": 1, "previous": "", "mood": 7,
        "architecture": "LlamaForCausalLM", "tasks": ["text-generation"], "parameters": 9, "dtype": "float32",
        "quant": None, "context": 256, "tokenizer": "tokenizer.json", "chat_template": False,
        "parents": [{"path": "/tiny", "version": "1", "how": "lora"}],
        "bytes_by_dtype": {"float32": 36, "bfloat16": 18, "int8": 12, "int4": 9},
    }  # fmt: skip


def test_versions_follow_each_other(models: Any, commit: Any) -> None:
    system = models()
    assert [commit(system, "/m"), commit(system, "/m"), commit(system, "/m@best"), commit(system, "/m")] == [
        "1", "2", "best", "4"
    ]  # fmt: skip
    info = system.stat("/m")
    assert info.version == "4" and info.fields["versions"] == ["1", "2", "best", "4"]
    for path in ("/m@best", "/m@2"):
        with pytest.raises(Exists):
            system.stage(path)


def test_a_candidate_does_not_become_current(models: Any, commit: Any) -> None:
    system = models()
    assert commit(system, "/m", {"candidate": True}) == "1" and system.stat("/m").version == "1", "there is no other"
    commit(system, "/m@best", {"candidate": True})
    assert (system.stat("/m").version, system.stat("/m").fields["versions"]) == ("1", ["1", "best"])
    assert system.stat("/m@best").version == "best" and "candidate" not in system.stat("/m@best").fields
    assert models().stat("/m").version == "1", "for the next process too"
    assert commit(system, "/m") == "3" and system.stat("/m").version == "3"
    assert system.control("rollback", {"name": "m", "version": "best"})["version"] == "best"


def test_the_expected_version_decides_between_two_writers(models: Any, make_model: Any) -> None:
    system, other = models(), models()
    (first, folder), (second, second_folder) = system.stage("/m"), other.stage("/m")
    make_model(folder)
    make_model(second_folder)
    assert system.commit(first, {}, "") == "1"
    with pytest.raises(Conflict) as caught:
        other.commit(second, {}, "")
    assert caught.value.version == "1"
    # Nothing is lost: the same folder can be committed after a look at what is there.
    assert second_folder.is_dir()
    with pytest.raises(Conflict):
        other.commit(second, {}, "7")
    assert other.commit(second, {}, "1") == "2"
    with pytest.raises(NotFound):
        other.commit(second, {}, None)


def test_two_processes_lose_no_version(models: Any, commit: Any, make_model: Any, tmp_path: Path) -> None:
    system = models()
    commit(system, "/m")
    arguments = [str(tmp_path / name) for name in ("models", "cache", "template")]
    make_model(tmp_path / "template")
    writers = [subprocess.Popen([sys.executable, "-c", MANY, *arguments]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    names = system.stat("/m").fields["versions"]
    assert names == [str(number) for number in range(1, 14)]
    before = [json.loads(bytes_of(system, f"/m@{name}/manifest.json")).get("before", "") for name in names]
    assert before == ["", *names[:-1]]
    assert scratch(tmp_path / "models") == []


@pytest.mark.slow
@pytest.mark.parametrize("exists", [False, True], ids=["new model", "second version"])
def test_a_commit_killed_anywhere_is_whole_or_absent(
    models: Any, commit: Any, make_model: Any, tmp_path: Path, exists: bool
) -> None:
    template = make_model(tmp_path / "template", {"tokenizer.json": b'{"new": 1}', "deep/file": b"x"})
    system = models()
    if exists:
        commit(system, "/org/m")
    arguments = [str(tmp_path / "models"), str(tmp_path / "copies"), str(tmp_path / "cache"), "/org/m", str(template)]
    subprocess.run([sys.executable, "-c", KILLED, *arguments], check=True)
    outcomes = []
    for root in sorted((tmp_path / "copies").iterdir()):
        system = models(root)  # the next start
        assert scratch(root) == []
        found = {info.path: info.version for info in system.list("/org")} if system.list("/") else {}
        whole = found == {"/org/m": "2" if exists else "1"}
        assert whole or found == ({"/org/m": "1"} if exists else {})
        outcomes.append(whole)
        assert {hit.path: hit.fields["version"] for hit in system.search("/", "", {}, 5)} == found
        if whole:
            assert bytes_of(system, "/org/m/tokenizer.json") == b'{"new": 1}'
            assert json.loads(bytes_of(system, "/org/m/manifest.json"))["mood"] == "new"
        if found:
            system.release(system.locate("/org/m")[0])
        report = system.control("fsck", {})
        assert report["ok"] and report["index"] == 0, report
        assert commit(system, "/org/m") == str(1 + int(max(found.values(), default="0")))
    # It was killed before the moment of publishing and after it; the last one got through.
    assert outcomes == sorted(outcomes) and outcomes.count(False) >= 5 and outcomes.count(True) >= 3


def test_a_full_disk_is_no_space_and_nothing_is_lost(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    script = tmp_path / "script.py"
    script.write_text(FULL)
    (tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=300k none {tmp_path}/disk && exec {sys.executable} {script} {tmp_path}/disk"
    run = subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "no space is left for /m (No space left on device); remove something and write it again", "1 True"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "manifest", "file"),
    [
        ({"model.safetensors": b"short"}, {}, "model.safetensors"),
        ({"model.safetensors": None}, {}, "model.safetensors"),
        ({"config.json": None}, {}, "manifest.json"),
        ({"config.json": b"{"}, {}, "config.json"),
        ({"pytorch_model.bin": b"x"}, {}, "pytorch_model.bin"),
        ({"manifest.json": b"{"}, {}, "manifest.json"),
        ({}, {"files": [{"name": "gone", "bytes": 1}]}, "gone"),
        ({}, {"files": [{"name": "tokenizer.json", "bytes": 1}]}, "tokenizer.json"),
        ({}, {"files": [{"name": "tokenizer.json", "bytes": 2, "sha256": "0" * 64}]}, "tokenizer.json"),
        ({}, {"files": [{"name": "../up", "bytes": 2}]}, "manifest.json"),
        ({}, {"format": 2}, "manifest.json"),
        ({}, {"metrics": b"bytes"}, "manifest.json"),
    ],
)
def test_what_could_not_be_loaded_is_not_published(
    models: Any, make_model: Any, files: Any, manifest: dict[str, Any], file: str
) -> None:
    system = models()
    token, folder = system.stage("/m")
    make_model(folder, files)
    with pytest.raises(BadModel) as caught:
        system.commit(token, manifest, None)
    assert caught.value.file == file
    assert system.list("/") == []
    # The folder is still there, to be mended.
    shutil.rmtree(folder)
    folder.mkdir()
    make_model(folder)
    assert system.commit(token, {}, None) == "1"


def test_a_complete_manifest_does_not_hide_damaged_weights(models: Any, make_model: Any) -> None:
    system = models()
    token, folder = system.stage("/m")
    make_model(folder, {"model.safetensors": b"short"})
    complete = dict.fromkeys(("architecture", "tasks", "parameters", "dtype", "context"), 1)
    with pytest.raises(BadModel) as caught:
        system.commit(token, complete, None)
    assert caught.value.file == "model.safetensors"
    system.release(token)


def test_links_are_not_published(models: Any, make_model: Any, tmp_path: Path) -> None:
    system = models()
    for name, target in [("inside.json", "config.json"), ("outside.json", "/etc/hostname"), ("manifest.json", "x")]:
        token, folder = system.stage("/m")
        make_model(folder, {"x": b"{}"})
        (folder / name).symlink_to(target)
        with pytest.raises(BadModel) as caught:
            system.commit(token, {}, None)
        assert caught.value.file == name
        system.release(token)
    assert scratch(tmp_path / "models") == []


def test_the_manifest_in_the_folder_counts_and_the_given_one_wins(models: Any, commit: Any) -> None:
    system = models()
    stored = b'{"mood": "stored", "licence": "MIT", "version": "9"}'
    commit(system, "/m", {"mood": "given"}, files={"manifest.json": stored})
    manifest = json.loads(bytes_of(system, "/m/manifest.json"))
    assert (manifest["mood"], manifest["licence"], manifest["version"]) == ("given", "MIT", "1")


def test_a_file_changed_while_others_are_hashed_is_not_trusted(models: Any, make_model: Any) -> None:
    system = models()
    token, folder = system.stage("/m")
    make_model(folder, {"a": b"one"})

    def progress(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
        if stage == "verify config.json":
            (folder / "a").write_bytes(b"two")

    system.progress = progress
    system.commit(token, {}, None)
    with pytest.raises(BadModel) as caught:
        system.locate("/m")
    assert caught.value.file == "a"


def test_a_file_changed_after_it_was_hashed_is_not_trusted(models: Any, commit: Any, tmp_path: Path) -> None:
    system = models()
    commit(system, "/m")
    path = tmp_path / "models" / "m" / "versions" / "1" / "tokenizer.json"
    path.write_bytes(b"[]")
    with pytest.raises(BadModel) as caught:
        system.locate("/m")
    assert caught.value.file == "tokenizer.json"


@pytest.mark.parametrize(
    "path",
    ["/", "/a/b/c", "/.hidden", "/org/.hidden", "/...", "/@1", "/a@b@c", "/a@latest", "/a@-x", "/a@x y", "/org@1/m",
     "/versions", "/org/versions", "/tab\there", "/a@" + "v" * 65],
)  # fmt: skip
def test_names_that_no_model_can_have(models: Any, path: str) -> None:
    with pytest.raises(BadArgument) as caught:
        models().stage(path)
    assert caught.value.name == "path"


@pytest.mark.parametrize("path", ["/a b", "/ü/日本", "/-rf", "/*"])
def test_names_that_a_model_can_have(models: Any, commit: Any, path: str) -> None:
    system = models()
    commit(system, path)
    assert system.stat(path).kind == "model"


def test_models_and_folders_of_models_do_not_mix(models: Any, commit: Any) -> None:
    system = models()
    commit(system, "/org/m")
    commit(system, "/solo")
    with pytest.raises(Exists, match="folder of models"):
        system.stage("/org")
    with pytest.raises(Exists, match="is a model"):
        system.stage("/solo/m")


def test_a_file_in_the_way_is_said(models: Any, commit: Any, tmp_path: Path) -> None:
    system = models()
    (tmp_path / "models" / "org").touch()
    with pytest.raises((NotDirectory, Exists)):
        commit(system, "/org/m")


def test_read_only_sources_take_nothing(models: Any, make_model: Any, tmp_path: Path) -> None:
    for source in (["bundled"], [make_model(tmp_path / "single")]):
        with pytest.raises(ReadOnly):
            models(*source).stage("/m")


def test_a_linked_model_is_not_changed(models: Any, make_model: Any, tmp_path: Path) -> None:
    system = models()
    (tmp_path / "models" / "m").symlink_to(make_model(tmp_path / "elsewhere"))
    with pytest.raises(ReadOnly, match="link"):
        system.stage("/m")


def test_a_new_version_of_a_plain_folder_and_of_a_lower_layer(
    models: Any, commit: Any, make_model: Any, tmp_path: Path
) -> None:
    make_model(tmp_path / "models" / "mine")
    make_model(tmp_path / "low" / "tiny", {"manifest.json": b'{"version": "v1", "files": []}'})
    system = models(tmp_path / "models", tmp_path / "low")
    for path, old in [("/mine", "local"), ("/tiny", "v1")]:
        assert system.stat(path).version == old
        assert commit(system, path, expected=old) == "1"
        assert system.stat(path).fields["versions"] == [old, "1"]
        assert json.loads(bytes_of(system, f"{path}/manifest.json"))["previous"] == old
    assert sorted(entry.name for entry in (tmp_path / "low" / "tiny").iterdir()) == [
        "config.json", "manifest.json", "model.safetensors", "tokenizer.json"
    ]  # fmt: skip


def test_the_first_folder_of_a_union_is_made_when_it_is_needed(models: Any, commit: Any, tmp_path: Path) -> None:
    system = models(tmp_path / "new" / "models", "bundled")
    assert not (tmp_path / "new").exists()
    commit(system, "/m")
    assert (tmp_path / "new" / "models" / "m").is_dir()


def test_a_staged_folder_is_dropped_by_release(models: Any, tmp_path: Path) -> None:
    system = models()
    token, folder = system.stage("/m")
    (folder / "f").touch()
    system.release(token)
    assert scratch(tmp_path / "models") == []
    with pytest.raises(NotFound):
        system.commit(token, {}, None)

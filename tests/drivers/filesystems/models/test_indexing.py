from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.drivers.filesystems.models import indexing
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.drivers.filesystems.models.index import content
from llmos.drivers.filesystems.models.indexing import Indexer, parents_of, texts
from llmos.drivers.filesystems.models.plugin import open_source
from llmos.syscalls.errors import LlmosError


def paths(system: ModelsFileSystem, **filters: Any) -> list[str]:
    return sorted(hit.path for hit in system.search("/", "", filters, 1000))


def described(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are described from now on."""
    seen: list[str] = []
    row_of = indexing.row_of

    def watched(model: Any, *rest: Any) -> Any:
        seen.append(model.path)
        return row_of(model, *rest)

    monkeypatch.setattr(indexing, "row_of", watched)
    return seen


def test_what_people_drop_and_take_away_is_noticed(models: Any, make_model: Any, tmp_path: Path) -> None:
    system, root = models(), tmp_path / "models"
    assert paths(system) == []
    make_model(root / "a")
    make_model(root / "org" / "b")
    assert paths(system) == ["/a", "/org/b"]
    make_model(root / "org" / "c")
    (root / "slow").mkdir()
    assert paths(system) == ["/a", "/org/b", "/org/c"]
    make_model(root / "slow")  # a copy that had only begun
    (root / "org" / "d").mkdir()
    assert paths(system) == ["/a", "/org/b", "/org/c", "/slow"]
    make_model(root / "org" / "d")
    shutil.rmtree(root / "a")
    shutil.rmtree(root / "org" / "b")
    assert paths(system) == ["/org/c", "/org/d", "/slow"]
    (root / "org" / "c" / "config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"]}))
    assert paths(system, architecture="gpt2") == ["/org/c"]
    shutil.rmtree(root / "org")
    (root / ".hidden").mkdir()
    (root / "x@1").mkdir()
    assert paths(system) == ["/slow"]
    make_model(root / "org")  # what was a folder of models is a model now
    assert paths(system) == ["/org", "/slow"]
    shutil.rmtree(root)
    assert paths(system) == []


def test_only_what_changed_is_described_again(
    models: Any, commit: Any, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = models()
    for name in ("/a", "/b", "/org/c"):
        commit(system, name)
    make_model(tmp_path / "models" / "plain")
    paths(system)
    seen = described(monkeypatch)
    assert paths(system) == ["/a", "/b", "/org/c", "/plain"] and seen == []
    commit(system, "/b")
    system.control("alias", {"name": "org/c", "alias": "prod"})
    other = models()
    assert paths(system) == paths(other) and sorted(seen) == ["/b", "/b", "/org/c"]
    assert paths(models()) == paths(system) and len(seen) == 3, "another process finds it done"


def test_all_changes_are_seen_by_others(models: Any, commit: Any, make_model: Any, tmp_path: Path) -> None:
    system, reader = models(), models()
    make_model(tmp_path / "models" / "plain")
    assert paths(reader) == ["/plain"]
    for version in ("1", "2"):
        assert commit(system, "/org/m") == version
        assert [hit.fields["version"] for hit in reader.search("/org", "", {}, 9)] == [version]
    system.control("rollback", {"name": "org/m"})
    assert [hit.fields["version"] for hit in reader.search("/org", "", {}, 9)] == ["1"]
    system.control("tag", {"name": "org/m", "tag": "good", "version": "2"})
    assert paths(reader, tag="good", all_versions=True) == ["/org/m@2"]
    system.remove("/org/m@2")
    assert paths(reader, all_versions=True) == ["/org/m", "/plain"]
    system.remove("/org/m")
    assert paths(reader) == ["/plain"]


def test_many_folders_are_looked_at_in_turn(
    models: Any, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, root = models(), tmp_path / "models"
    monkeypatch.setattr(indexing, "IN_TURN", 2)
    for number in range(6):
        make_model(root / f"m{number}")
    paths(system)
    (root / "m4" / "config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"]}))
    assert any(paths(system, architecture="gpt2") == ["/m4"] for _ in range(4))


def test_a_large_change_is_indexed_bit_by_bit(models: Any, make_model: Any, tmp_path: Path) -> None:
    system, root = models(), tmp_path / "models"
    paths(system)
    for number in range(2 * indexing.BATCH + 5):
        make_model(root / f"m{number:03}")
    times = iter(range(1000))
    slow = Indexer(system._store, system._describer, system._index, lambda: next(times))
    left = [slow.sync(), slow.sync(), slow.sync()]
    assert left == [indexing.BATCH + 5, 5, 0]
    assert len(paths(system)) == 2 * indexing.BATCH + 5


def test_what_was_not_reached_is_reached_by_the_next_process(models: Any, make_model: Any, tmp_path: Path) -> None:
    system, root = models(), tmp_path / "models"
    paths(system)
    for number in range(indexing.BATCH + 5):
        make_model(root / f"m{number:03}")
    times = iter(range(1000))
    assert Indexer(system._store, system._describer, system._index, lambda: next(times)).sync() == 5
    assert len(paths(models())) == indexing.BATCH + 5


def test_an_impatient_reader_does_not_wait_for_the_first_index(models: Any, make_model: Any, tmp_path: Path) -> None:
    system = models()
    for number in range(indexing.BATCH + 5):
        make_model(tmp_path / "models" / f"m{number:03}")
    times = iter(range(1000))
    indexer = Indexer(system._store, system._describer, system._index, lambda: next(times))
    told: list[tuple[int, int, str, str]] = []
    assert indexer.sync(lambda *seen: told.append(seen), patient=False) == 5
    assert indexer.sync(lambda *seen: told.append(seen)) == 0
    assert told == [(indexing.BATCH, indexing.BATCH + 5, "models", "index"), (5, 5, "models", "index")]


@pytest.mark.parametrize("damage", [b"", b"x" * 5000, None])
def test_an_index_that_is_damaged_or_gone_is_made_again(
    models: Any, commit: Any, make_model: Any, tmp_path: Path, damage: bytes | None
) -> None:
    system = models()
    commit(system, "/org/m", {"licence": "MIT"})
    make_model(tmp_path / "models" / "plain")
    before = system.search("/", "llama", {}, 9)
    system.close()
    [file] = (tmp_path / "cache").glob("index-*.db")
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    assert system.search("/", "llama", {}, 9) == models().search("/", "llama", {}, 9) == before


def test_odd_manifests_are_indexed_as_far_as_they_go(models: Any, make_model: Any, tmp_path: Path) -> None:
    odd = {
        "architecture": 5, "tasks": "one", "languages": ["en", 7], "licence": None, "context": -1,
        "parameters": 1 << 70, "parents": [5, {"path": 5}, {"path": "/x", "version": 3}], "tags": [],
        "metrics": {"accuracy": True, "f1": 0.25}, "created": ["x"], "files": [5, {"name": "a", "bytes": 1}],
    }  # fmt: skip
    make_model(tmp_path / "models" / "m", {"manifest.json": json.dumps(odd).encode()})
    [hit] = models().search("/", "", {"language": "7"}, 9)
    assert hit.path == "/m" and hit.fields["measured"] == {"": {"quality": 0.25}}
    assert [parent.version for parent in parents_of(odd)] == ["3"]
    assert texts(["a", 1]) == ["a", "1"] and texts("a") == []


def test_a_damaged_model_is_found_with_its_problem(models: Any, make_model: Any, tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "broken", {"config.json": b"{"})
    [hit] = models().search("/", "", {}, 9)
    assert hit.path == "/broken" and "config.json" in hit.fields["problem"]
    assert hit.reason.endswith("; it cannot be used")


def test_measures_are_seen_by_others_also_when_the_log_was_lost(models: Any, make_model: Any, tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "m")
    system, reader = models(), models()
    assert paths(reader) == ["/m"]
    for value in (0.5, 0.25):
        system.control("measure", {"name": "m", "device": "d", "values": {"quality": value}})
        [hit] = reader.search("/", "", {}, 9)
        assert hit.fields["measured"] == {"d": {"quality": value}}
    system.control("measure", {"name": "m", "device": "d", "values": {"quality": 1.0}})
    (tmp_path / "models" / ".llmos" / "changes").unlink()
    [hit] = reader.search("/", "", {}, 9)
    assert hit.fields["measured"] == {"d": {"quality": 1.0}}


def test_measures_of_a_read_only_source_are_kept_in_the_index(models: Any, make_model: Any, tmp_path: Path) -> None:
    system = models(make_model(tmp_path / "alone"))
    told = {"name": "/", "device": "cpu0", "values": {"tokens_per_s": 7.0}}
    assert system.control("measure", told)["version"] == "local"
    assert system.stat("/").fields["measured"] == {"cpu0": {"tokens_per_s": 7.0}}
    assert system.control("fsck", {})["ok"]
    [hit] = system.search("/", "", {}, 1)
    assert hit.fields["measured"] == {"cpu0": {"tokens_per_s": 7.0}}


# ---- any sequence of changes leaves the index as if it had been made anew

NAMES = st.sampled_from(["/a", "/b", "/org/c"])
VERSIONS = st.sampled_from(["1", "2", "3", "latest"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), NAMES, st.sampled_from([b"0", b"1"])),
        st.tuples(st.just("alias"), NAMES, VERSIONS),
        st.tuples(st.just("tag"), NAMES, VERSIONS),
        st.tuples(st.just("rollback"), NAMES, VERSIONS),
        st.tuples(st.just("remove"), NAMES, st.sampled_from(["", "@1", "@2", "@prod"])),
        st.tuples(st.just("measure"), NAMES, VERSIONS),
        st.tuples(st.just("gc"), st.integers(1, 2), st.none()),
        st.tuples(st.just("search"), st.none(), st.none()),
    ),
    max_size=14,
)


def change(system: ModelsFileSystem, make_model: Callable[..., Path], step: tuple[str, Any, Any]) -> None:
    what, name, more = step
    if what == "commit":
        token, folder = system.stage(name)
        make_model(folder, {"tokenizer.json": more})
        parents = [{"path": "/a", "version": "1", "how": "merge"}] if name == "/b" else []
        system.commit(token, {"parents": parents})
    elif what == "remove":
        system.remove(name + more)
    elif what == "search":
        system.search("/", "llama", {}, 5)
    elif what == "gc":
        system.control("gc", {"keep": name})
    else:
        options = {
            "alias": {"alias": "prod", "version": more}, "tag": {"tag": "good", "version": more},
            "rollback": {"version": more}, "measure": {"version": more, "device": "d", "values": {"quality": 0.5}},
        }[what]  # fmt: skip
        system.control(what, {"name": name, **options})


def test_any_sequence_of_changes_leaves_the_index_true(make_model: Any) -> None:
    @settings(max_examples=25, deadline=None)
    @given(STEPS)
    def run(steps: list[tuple[str, Any, Any]]) -> None:
        with TemporaryDirectory() as home:
            system = open_source(f"{home}/models:bundled", {"cache": f"{home}/cache"})
            assert isinstance(system, ModelsFileSystem)
            for step in steps:
                try:
                    change(system, make_model, step)
                except LlmosError:
                    continue  # what is not there cannot be changed
            system._indexer.sync()
            kept = system._index.use(content)
            fresh = open_source(f"{home}/models:bundled", {"cache": f"{home}/other"})
            assert isinstance(fresh, ModelsFileSystem)
            fresh._indexer.sync()
            assert kept == fresh._index.use(content)
            # Every version can be used, and no content is there that nobody has, after the last gc.
            assert system.control("fsck", {})["ok"]
            system.control("gc", {"keep": 9})
            assert system.control("gc", {})["blobs"] == 0
            system.close()
            fresh.close()

    run()


WRITER = """
import sys
from pathlib import Path
from llmos.drivers.filesystems.models.plugin import open_source
root, cache, name = sys.argv[1:]
system = open_source(root, {"cache": cache})
for number in range(12):
    token, folder = system.stage(f"/{name}" if number % 2 else "/shared")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    system.commit(token, {"by": name})
    system.search("/", "", {}, 5)
"""


def test_two_processes_write_at_once_and_disk_and_index_agree(models: Any, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "models"), str(tmp_path / "cache")]
    system = models()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, *arguments, name]) for name in ("one", "two")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = {hit.path for hit in system.search("/", "", {"all_versions": True}, 99)}
    assert len(found) == 24 and {"/one", "/two", "/shared", "/shared@11"} <= found
    report = system.control("fsck", {})
    assert report["ok"] and (report["index"], report["blobs"], report["versions"]) == (0, 2, 24)
    for blob in (tmp_path / "models" / ".llmos" / "blobs").glob("*/*"):
        assert blob.stat().st_nlink == 25

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.drivers.contract import FileSystem
from llmos.drivers.filesystems import files as module
from llmos.drivers.filesystems.files import FolderFileSystem, open_source, register_filesystems
from llmos.drivers.filesystems.paths import PAGE
from llmos.syscalls.errors import (
    BadArgument, Busy, Conflict, LlmosError, NotDirectory, NotFound, NotSupported, ReadOnly, TooLarge,
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[FolderFileSystem]:
    (tmp_path / "tree").mkdir()
    yield FolderFileSystem(str(tmp_path / "tree"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "tree"


def put(tree: FileSystem, path: str, data: bytes) -> str:
    handle = tree.open(path, "w")
    handle.write(0, data)
    return handle.close()


def get(tree: FileSystem, path: str) -> bytes:
    handle = tree.open(path, "r")
    data = handle.read(0, handle.bytes)
    handle.close()
    return data


def test_a_file_is_written_listed_read_and_removed(tree: FolderFileSystem) -> None:
    version = put(tree, "/notes/today.txt", b"hello")
    assert get(tree, "/notes/today.txt") == b"hello"
    assert [(info.path, info.kind) for info in tree.list("/")] == [("/notes", "folder")]
    [info] = tree.list("/notes")
    assert info == tree.stat("/notes/today.txt")
    assert (info.path, info.kind, info.bytes, info.version) == ("/notes/today.txt", "file", 5, version)
    with pytest.raises(Busy, match="not empty"):
        tree.remove("/notes")
    tree.remove("/notes/today.txt")
    tree.remove("/notes")
    assert tree.list("/") == []
    for path in ("/notes", "/notes/today.txt"):
        with pytest.raises(NotFound, match=path):
            tree.stat(path)


def test_every_change_gives_another_version(tree: FolderFileSystem) -> None:
    versions = {put(tree, "/f", data) for data in (b"a", b"b", b"b", b"cc")}
    assert len(versions) == 4
    with pytest.raises(Conflict) as caught:
        tree.open("/f", "r", expected_version=versions.pop() + "x")
    assert caught.value.version == tree.stat("/f").version


def test_folders_are_told_from_files(tree: FolderFileSystem) -> None:
    put(tree, "/d/f", b"x")
    for path in ("/d", "/", "/d/"):
        with pytest.raises(BadArgument):
            tree.open(path, "r")
    with pytest.raises(NotDirectory):
        tree.list("/d/f")
    for action in (lambda: tree.open("/d/f/g", "r"), lambda: tree.stat("/d/f/g"), lambda: tree.open("/d/f/g", "w")):
        with pytest.raises(NotDirectory):
            action()
    with pytest.raises(NotFound):
        tree.list("/missing")
    with pytest.raises(BadArgument, match="mode"):
        tree.open("/d/f", "rw")


def test_long_folders_come_in_pages(tree: FolderFileSystem, root: Path) -> None:
    for number in range(PAGE + 5):
        (root / f"{number:06}").touch()
    first = tree.list("/")
    second = tree.list("/", after=first[-1].path)
    assert [info.path for info in [*first, *second]] == [f"/{number:06}" for number in range(PAGE + 5)]


@pytest.mark.parametrize("name", ["a b", "ü", "-rf", ".hidden", "日本", "x" * 255, "*", "a@b", "tab\there"])
def test_weird_names(tree: FolderFileSystem, name: str) -> None:
    put(tree, f"/{name}/{name}", b"x")
    assert [info.path for info in tree.list("/")] == [f"/{name}"]
    assert get(tree, f"/{name}/{name}") == b"x"


def test_the_private_folder_is_not_there(tree: FolderFileSystem, root: Path) -> None:
    put(tree, "/f", b"x")
    assert (root / ".llmos").is_dir()
    assert [info.path for info in tree.list("/")] == ["/f"]
    for path in ("/.llmos", "/.llmos/lock"):
        for action in (tree.stat, tree.list, tree.remove, tree.locate):
            with pytest.raises(NotFound, match="reserved"):
                action(path)
        with pytest.raises(NotFound):
            tree.open(path, "w")


def test_links_lead_nowhere(tree: FolderFileSystem, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    for path in ("/link", "/up/secret"):
        for mode in "rwa":
            with pytest.raises((NotFound, NotDirectory)):
                tree.open(path, mode)
    with pytest.raises((NotFound, NotDirectory)):
        tree.list("/up")
    with pytest.raises(NotFound):
        tree.locate("/link")
    with pytest.raises(NotFound):
        tree.locate("/")
    assert tree.stat("/link").fields == {"problem": "a symbolic link"}
    tree.remove("/link")
    tree.remove("/up")
    assert (tmp_path / "secret").read_text() == "outside"


def test_a_pipe_is_refused_at_once(tree: FolderFileSystem, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(LlmosError, match="/pipe"):
        tree.open("/pipe", "r")
    assert tree.stat("/pipe").fields == {"problem": "not a regular file"}


def test_names_that_are_not_text_are_left_out(tree: FolderFileSystem, root: Path) -> None:
    (root / os.fsdecode(b"\xff")).touch()
    put(tree, "/f", b"x")
    assert [info.path for info in tree.list("/")] == ["/f"]


def test_a_file_is_located(tree: FolderFileSystem, root: Path) -> None:
    version = put(tree, "/data/train.jsonl", b"{}\n")
    token, source = tree.locate("/data/train.jsonl", version)
    [file] = source.files
    assert (file.name, file.path, file.bytes) == ("train.jsonl", root / "data" / "train.jsonl", 3)
    assert (source.path, source.version) == ("/data/train.jsonl", version)
    for path in ("/data/train.jsonl", "/data"):
        with pytest.raises(Busy, match="being read"):
            tree.remove(path)
    tree.release(token)
    tree.remove("/data/train.jsonl")
    tree.release(token)
    with pytest.raises(NotFound):
        tree.locate("/data/train.jsonl")


def test_a_folder_is_located_with_all_its_files(tree: FolderFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/set/b", "/set/deep/er/a", "/set/.c", "/other"):
        put(tree, path, path.encode())
    token, source = tree.locate("/set")
    assert {file.name: file.path.read_bytes() for file in source.files} == {
        "b": b"/set/b", "deep/er/a": b"/set/deep/er/a", ".c": b"/set/.c"
    }  # fmt: skip
    with pytest.raises(Busy):
        tree.remove("/set/b")
    tree.release(token)
    token, source = tree.locate("/")
    assert len(source.files) == 4
    tree.release(token)
    monkeypatch.setattr(module, "MAX_LOCATED", 3)
    with pytest.raises(TooLarge):
        tree.locate("/")


def test_another_version_is_not_located(tree: FolderFileSystem) -> None:
    old = put(tree, "/f", b"old")
    new = put(tree, "/f", b"new!")
    with pytest.raises(Conflict) as caught:
        tree.locate("/f", old)
    assert caught.value.version == new


def test_the_top_stays(tree: FolderFileSystem) -> None:
    with pytest.raises(ReadOnly):
        tree.remove("/")
    assert tree.stat("/").kind == "folder"


def test_sources() -> None:
    with pytest.raises(BadArgument):
        FolderFileSystem("relative")
    with pytest.raises(NotFound, match="/no/such/folder"):
        FolderFileSystem("/no/such/folder")
    with pytest.raises(NotSupported, match="setting"):
        open_source("/", {"colour": 1})


def test_the_plugin_registers_one_file_system(tmp_path: Path) -> None:
    found = {}
    register_filesystems(found.__setitem__)
    assert isinstance(found["files"](str(tmp_path), {}), FolderFileSystem)
    assert not any(tmp_path.iterdir())


def test_a_read_only_tree_is_served_and_not_written(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    tree = FolderFileSystem(str(tmp_path))
    assert get(tree, "/f") == b"x"
    tree.release(tree.locate("/")[0])
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_host_serves_a_folder(host_of: Any, tmp_path: Path) -> None:
    host = host_of("files")
    host.start()
    source = str(tmp_path)
    opened = host.call("open", {"source": source, "path": "/notes/f", "mode": "x"})
    assert host.call("write", {"token": opened["token"], "offset": 0, "data": b"hello"}) == {"count": 5}
    assert not (tmp_path / "notes" / "f").exists()
    version = host.call("close", {"token": opened["token"]})["version"]
    read = host.call("open", {"source": source, "path": "/notes/f"})
    assert (read["bytes"], read["version"]) == (5, version)
    assert host.call("read", {"token": read["token"], "offset": 1, "count": 9})["data"] == b"ello"
    host.call("close", {"token": read["token"]})
    conflict = host.call("open", {"source": source, "path": "/notes/f", "mode": "w", "expected_version": "other"})
    assert (conflict["name"], conflict["fields"]["version"]) == ("Conflict", version)
    located = host.call("locate", {"source": source, "path": "/notes"})
    assert [file["name"] for file in located["files"]] == ["f"]


NAMES = st.sampled_from(["a", "b", "..", ".", "", "a b", "\0", ".llmos", "link", "x" * 256, "ü"])


@settings(max_examples=200)
@given(st.lists(NAMES, max_size=4), st.sampled_from("rwax"))
def test_no_path_reaches_outside(tmp_path_factory: pytest.TempPathFactory, names: list[str], mode: str) -> None:
    base = tmp_path_factory.mktemp("outside", numbered=True)
    (base / "tree").mkdir()
    (base / "a").write_text("secret")
    (base / "tree" / "link").symlink_to(base)
    tree = FolderFileSystem(str(base / "tree"))
    path = "/" + "/".join(names)
    try:
        handle = tree.open(path, mode)
    except LlmosError:
        pass
    else:
        handle.write(0, b"x")
        handle.close()
        assert get(tree, path) == b"x"
    for action in (tree.stat, tree.list, tree.remove):
        try:
            action(path)
        except LlmosError:
            continue
    assert sorted(entry.name for entry in base.iterdir()) == ["a", "tree"]
    assert (base / "a").read_text() == "secret"

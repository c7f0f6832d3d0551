"""The kernel's calls to a file system, through a real host with a file system of a few lines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from llmos.drivers.file_calls import FileCalls
from llmos.syscalls.driver import HOST_CALLS
from llmos.syscalls.errors import BadArgument

SOURCE = """
    from pathlib import Path

    from llmos.drivers.contract import FileInfo, FileSystem, Found, ModelSource, OpenHandle, SourceFile
    from llmos.drivers.hookspecs import hookimpl
    from llmos.syscalls.errors import NotFound, NotSupported

    class Handle(OpenHandle):
        def __init__(self, path, note):
            self.path, self.note, self.version = path, note, "v1"
            self.data = bytearray(path.read_bytes() if path.exists() else b"")
            self.bytes = len(self.data)

        def read(self, offset, count):
            return bytes(self.data[offset : offset + count])

        def write(self, offset, data):
            self.data[offset : offset + len(data)] = data
            self.bytes = len(self.data)
            return len(data)

        def close(self):
            self.path.write_bytes(self.data)
            return "v2"

        def discard(self):
            self.note("discarded " + self.path.name)

    class Files(FileSystem):
        def __init__(self, source, config):
            self.root = Path(source)
            self.config = config

        def note(self, text):
            with (self.root / "notes").open("a") as stream:
                stream.write(text + "\\n")

        def at(self, path):
            found = self.root / path[1:]
            if not found.exists():
                raise NotFound(f"no {path}")
            return found

        def open(self, path, mode, expected_version=None):
            return Handle(self.at(path) if mode == "r" else self.root / path[1:], self.note)

        def list(self, path, after=""):
            names = sorted("/" + p.name for p in self.at(path).iterdir())
            return [FileInfo(name, "file", fields=self.config) for name in names if name > after]

        def stat(self, path):
            return FileInfo(path, "file", self.at(path).stat().st_size, "v1", 5.0)

        def search(self, path, query, filters, limit):
            return [Found(path, 1.0, 2, 3, filters, query)][:limit]

        def remove(self, path):
            self.at(path).unlink()

        def locate(self, path, version=""):
            file = self.at(path)
            manifest = {"files": [{"name": "w", "sha256": "abc"}]}
            return "inner", ModelSource(path, version or "v1", [SourceFile("w", file, 5, 1)], manifest)

        def release(self, token):
            self.note("released " + token)

        def stage(self, path):
            folder = self.root / "staged"
            folder.mkdir()
            return "stage of " + path, folder

        def commit(self, token, manifest, expected_version=None):
            self.note(f"committed {token} {manifest} {expected_version}")
            return "v9"

        def control(self, action, options):
            if action != "gc":
                raise NotSupported("no", why="only gc")
            self.note(f"gc {options}")
            return {"freed": 5}

    @hookimpl
    def register_filesystems(register):
        register("files0", Files)
"""


class Unreachable:
    """A file system whose every method must not be called."""

    def __getattr__(self, name: str) -> Any:
        def method(*given: object) -> None:
            raise AssertionError(f"{name} was called with {given}")

        return method


@pytest.fixture
def root(folder: Path) -> Path:
    path = folder / "root"
    path.mkdir()
    (path / "hello").write_bytes(b"hello world")
    return path


@pytest.fixture
def files(host_of: Callable[..., Any], package: Callable[..., Any], root: Path) -> Any:
    kernel = host_of("files0", package("files0", SOURCE, "llmos.filesystems").environ)
    ready = kernel.start(colour="red")
    assert (ready.body["filesystem"], ready.body["devices"]) == ("files0", [])
    return kernel


def notes(root: Path) -> list[str]:
    return (root / "notes").read_text().splitlines()


def test_a_file_is_read_in_pieces(files: Any, root: Path) -> None:
    opened = files.call("open", {"source": str(root), "path": "/hello"})
    assert (opened["bytes"], opened["version"]) == (11, "v1")
    token = opened["token"]
    assert files.call("read", {"token": token, "offset": 0, "count": 5}) == {"data": b"hello", "eof": False, "path": ""}
    assert files.call("read", {"token": token, "offset": 6, "count": 99})["eof"] is True
    assert files.call("read", {"token": token, "offset": 99, "count": 9})["data"] == b""
    files.call("close", {"token": token})
    assert files.call("read", {"token": token, "offset": 0, "count": 1})["name"] == "NotFound"


def test_a_file_is_read_into_a_buffer(files: Any, root: Path, folder: Path) -> None:
    buffer = folder / "buffer"
    buffer.write_bytes(b"." * 16)
    token = files.call("open", {"source": str(root), "path": "/hello"})["token"]
    into = {"path": str(buffer), "bytes": 16}
    answer = files.call("read", {"token": token, "offset": 6, "count": 100, "into": into})
    assert (answer["data"]["length"], answer["eof"], answer["path"]) == (5, True, str(buffer))
    assert buffer.read_bytes() == b"world..........."
    small = {"path": str(buffer), "bytes": 3}
    answer = files.call("read", {"token": token, "offset": 0, "count": 100, "into": small})
    assert (answer["data"]["length"], answer["eof"]) == (3, False)
    assert buffer.read_bytes() == b"helld..........."


def test_a_file_is_written_from_the_message_and_from_a_buffer(files: Any, root: Path, folder: Path) -> None:
    token = files.call("open", {"source": str(root), "path": "/new", "mode": "w"})["token"]
    assert files.call("write", {"token": token, "offset": 0, "data": b"one "}) == {"count": 4}
    buffer = folder / "buffer"
    buffer.write_bytes(b"--two--")
    source = {"path": str(buffer), "bytes": 7}
    body = {"token": token, "offset": 4, "source": source, "source_offset": 2, "source_length": 3}
    assert files.call("write", body) == {"count": 3}
    assert files.call("write", {**body, "source_length": 6})["name"] == "BadArgument"
    assert files.call("write", {**body, "source_offset": -1})["name"] == "BadArgument"
    assert files.call("close", {"token": token}) == {"version": "v2"}
    assert (root / "new").read_bytes() == b"one two"


def test_what_is_written_can_be_dropped(files: Any, root: Path) -> None:
    token = files.call("open", {"source": str(root), "path": "/new", "mode": "w"})["token"]
    assert files.call("close", {"token": token, "discard": True}) == {"version": "v1"}
    assert notes(root) == ["discarded new"]


def test_names_are_listed_described_searched_and_removed(files: Any, root: Path) -> None:
    (entry,) = files.call("list", {"source": str(root), "path": "/"})
    assert (entry["path"], entry["kind"], entry["fields"]) == ("/hello", "file", {"colour": "red"})
    assert files.call("list", {"source": str(root), "path": "/", "after": "/hello"}) == []
    stat = files.call("stat", {"source": str(root), "path": "/hello"})
    assert (stat["bytes"], stat["version"], stat["mtime"]) == (11, "v1", 5.0)
    (hit,) = files.call("search", {"source": str(root), "path": "/", "query": "x", "filters": {"a": 1}})
    assert (hit["path"], hit["start"], hit["end"], hit["fields"], hit["reason"]) == ("/", 2, 3, {"a": 1}, "x")
    assert files.call("remove", {"source": str(root), "path": "/hello"}) == {}
    assert files.call("stat", {"source": str(root), "path": "/hello"})["name"] == "NotFound"


def test_a_model_is_located_until_it_is_released(files: Any, root: Path) -> None:
    located = files.call("locate", {"source": str(root), "path": "/hello", "version": "v7"})
    (file,) = located["files"]
    assert (located["path"], located["version"], file["path"]) == ("/hello", "v7", str(root / "hello"))
    assert (file["bytes"], file["offset"], file["sha256"]) == (5, 1, "abc")
    assert files.call("release", {"token": located["token"]}) == {}
    assert notes(root) == ["released inner"]
    assert files.call("release", {"token": located["token"]})["name"] == "NotFound"


def test_a_result_is_staged_and_committed(files: Any, root: Path) -> None:
    staged = files.call("stage", {"source": str(root), "path": "/out"})
    assert Path(staged["path"]) == root / "staged"
    body = {"token": staged["token"], "manifest": {"a": 1}, "expected_version": "v1"}
    assert files.call("commit", body) == {"version": "v9"}
    assert notes(root) == ["committed stage of /out {'a': 1} v1"]
    assert files.call("commit", body)["name"] == "NotFound"


def test_a_staged_folder_takes_the_files_of_another_which_keeps_them(files: Any, root: Path, tmp_path: Path) -> None:
    (tmp_path / "made" / "inner").mkdir(parents=True)
    (tmp_path / "made" / "weights").write_text("w")
    (tmp_path / "made" / "inner" / "words").write_text("i")
    staged = Path(files.call("stage", {"source": str(root), "path": "/out", "take": str(tmp_path / "made")})["path"])
    assert (staged / "weights").read_text() == "w" and (staged / "inner" / "words").read_text() == "i"
    assert (tmp_path / "made" / "weights").read_text() == "w"
    assert (staged / "weights").samefile(tmp_path / "made" / "weights")


def test_files_of_another_disk_are_copied(files: Any, root: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        Path(folder, "weights").write_text("w")
        staged = Path(files.call("stage", {"source": str(root), "path": "/out", "take": folder})["path"])
        assert (staged / "weights").read_text() == "w"


def test_a_folder_that_is_not_there_leaves_nothing_staged(files: Any, root: Path, tmp_path: Path) -> None:
    error = files.call("stage", {"source": str(root), "path": "/out", "take": str(tmp_path / "none")})
    assert error["name"] == "NotFound" and notes(root) == ["released stage of /out"]


def test_a_staged_folder_can_be_given_up(files: Any, root: Path) -> None:
    token = files.call("stage", {"source": str(root), "path": "/out"})["token"]
    assert files.call("release", {"token": token}) == {}
    assert notes(root) == ["released stage of /out"]
    assert files.call("commit", {"token": token, "manifest": {}})["name"] == "NotFound"


def test_actions_reach_the_file_system(files: Any, root: Path) -> None:
    done = files.call("fs_control", {"source": str(root), "action": "gc", "options": {"all": True}})
    assert done == {"fields": {"freed": 5}}
    assert files.call("fs_control", {"source": str(root), "action": "dance"})["fields"]["why"] == "only gc"
    assert notes(root) == ["gc {'all': True}"]


@pytest.mark.parametrize("path", ["", "hello", "/../hello", "/a/../b", "//hello", "/hello/", "/./hello", "/a\0b"])
@pytest.mark.parametrize("call", ["open", "list", "stat", "remove", "locate", "stage", "search"])
def test_a_path_that_is_not_normal_never_reaches_the_driver(call: str, path: str) -> None:
    calls = FileCalls("files0", cast(Any, lambda _source, _config: Unreachable()), {})
    spec = HOST_CALLS[call]
    extra = {"query": "x"} if call == "search" else {}
    with pytest.raises(BadArgument, match="not an absolute, normalised path"):
        calls.handlers[spec.cls](1, spec.cls(source="/", path=path, **extra))


def test_negative_offsets_are_refused(files: Any, root: Path) -> None:
    token = files.call("open", {"source": str(root), "path": "/hello"})["token"]
    for wrong in ({"offset": -1, "count": 1}, {"offset": 0, "count": -1}):
        assert files.call("read", {"token": token, **wrong})["name"] == "BadArgument"


def test_a_device_call_is_unknown_here(files: Any) -> None:
    assert files.call("unload", {"id": "m"})["name"] == "BadCall"


def test_draining_refuses_what_is_new_and_lets_the_open_go_on(files: Any, root: Path) -> None:
    token = files.call("open", {"source": str(root), "path": "/hello"})["token"]
    assert files.call("drain") == {}
    assert files.call("open", {"source": str(root), "path": "/hello"})["name"] == "Unavailable"
    assert files.call("read", {"token": token, "offset": 0, "count": 5})["data"] == b"hello"


def test_stopping_drops_what_is_half_written_and_releases_what_was_located(files: Any, root: Path) -> None:
    files.call("open", {"source": str(root), "path": "/new", "mode": "w"})
    files.call("locate", {"source": str(root), "path": "/hello"})
    files.call("stage", {"source": str(root), "path": "/out"})
    assert files.call("stats")["values"] == {"calls": 3.0, "open": 1.0, "located": 1.0}
    files.call("stop")
    assert files.wait() == 0
    assert notes(root) == ["discarded new", "released inner", "released stage of /out"]
    assert not (root / "new").exists()

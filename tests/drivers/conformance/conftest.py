"""A bench with a sound device and one with a sound file system, to be broken on purpose."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.conformance.device_bench import DeviceBench
from llmos.drivers.conformance.filesystem_checks import FileSystemBench
from llmos.drivers.conformance.verdicts import Absent
from llmos.drivers.contract import FileInfo, FileSystem, ModelSource, OpenHandle, SourceFile
from llmos.drivers.devices.null import NullDevice
from llmos.syscalls.errors import BadArgument, Conflict, Exists, NotDirectory, NotFound, NotSupported

Failing = Callable[[Any, Sequence[Callable[[Any], None]]], dict[str, str]]


@pytest.fixture
def device_bench(folder: Path) -> Iterator[Callable[..., DeviceBench]]:
    """`device_bench(DeviceClass)`: a bench with a started device of that class."""

    def make(kind: type[NullDevice] = NullDevice) -> DeviceBench:
        device = kind()
        device.start("null0", 1, {})
        return DeviceBench("null0", device, ModelSource("/models/m", "1", [], {"context": 512}))

    yield make


@pytest.fixture
def failing() -> Failing:
    """`failing(make_bench, checks)`: which of the checks fail, each on a bench of its own, and why."""

    def run(make: Callable[[], Any], checks: Sequence[Callable[[Any], None]]) -> dict[str, str]:
        found = {}
        for check in checks:
            try:
                check(make())
            except Absent:
                pass
            except Exception as error:  # noqa: BLE001 - a broken driver may raise anything
                found[check.__name__] = f"{type(error).__name__}: {error}"
        return found

    return run


class TreeHandle(OpenHandle):
    """Keeps what is written beside the file until it is closed."""

    def __init__(self, tree: Tree, path: Path, mode: str) -> None:
        self.tree, self.path, self.mode = tree, path, mode
        self.data = bytearray(path.read_bytes() if mode in "ra" else b"")
        self.version = tree.version_of(path)

    @property
    def bytes(self) -> int:  # type: ignore[override]
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.data[offset : offset + count])

    def write(self, offset: int, data: bytes | memoryview) -> int:
        if self.mode == "r":
            raise NotSupported("opened for reading", why="mode r")
        self.data[offset : offset + len(data)] = data
        return len(data)

    def close(self) -> str:
        if self.mode != "r":
            self.path.write_bytes(self.data)
            self.tree.changed(self.path)
        return self.tree.version_of(self.path)


class Tree(FileSystem):
    """A folder of the host; a folder with a config.json is a model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.versions: dict[Path, int] = {}
        self.staged: dict[str, tuple[Path, Path]] = {}
        self.numbers = count(1)

    def version_of(self, path: Path) -> str:
        return f"v{self.versions.get(path, 0)}"

    def changed(self, path: Path) -> None:
        self.versions[path] = self.versions.get(path, 0) + 1

    def at(self, path: str) -> Path:
        if not path.startswith("/") or "\0" in path or {"..", "."} & set(path.split("/")):
            raise BadArgument(f"{path!r} leads out of here", name="path")
        return self.root / path[1:]

    def existing(self, path: str) -> Path:
        found = self.at(path)
        if not found.exists():
            raise NotFound(f"nothing at {path}")
        return found

    def info(self, found: Path) -> FileInfo:
        path = f"/{found.relative_to(self.root)}".replace("/.", "/") if found != self.root else "/"
        if found.is_dir():
            return FileInfo(path, "model" if (found / "config.json").exists() else "folder")
        return FileInfo(path, "file", found.stat().st_size, self.version_of(found))

    def open(self, path: str, mode: str, expected_version: str | None = None) -> OpenHandle:
        if mode not in ("r", "w", "a", "x"):
            raise BadArgument(f"mode {mode!r}", name="mode")
        found = self.existing(path) if mode in "ra" else self.at(path)
        if mode == "x" and found.exists():
            raise Exists(f"{path} exists")
        if expected_version not in (None, self.version_of(found)):
            raise Conflict(f"{path} is {self.version_of(found)}", version=self.version_of(found))
        return TreeHandle(self, found, mode)

    def list(self, path: str, after: str = "") -> Sequence[FileInfo]:
        found = self.existing(path)
        if not found.is_dir():
            raise NotDirectory(f"{path} is a file")
        infos = sorted((self.info(entry) for entry in found.iterdir()), key=lambda info: info.path)
        return [info for info in infos if info.path > after]

    def stat(self, path: str) -> FileInfo:
        return self.info(self.existing(path))

    def remove(self, path: str) -> None:
        found = self.existing(path)
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink()

    def locate(self, path: str, version: str = "") -> tuple[str, ModelSource]:
        found = self.existing(path)
        files = [SourceFile(f.name, f, f.stat().st_size) for f in sorted(found.iterdir())]
        return path, ModelSource(path, self.version_of(found), files)

    def bring(self, path: str, sources: Any, recipe: Any, progress: Any) -> dict[str, Any]:
        (source,) = sources
        if isinstance(source, str):
            raise NotSupported(f"nothing is brought from {source}", why="unknown kind of source")
        target = self.at(path)
        target.mkdir()
        for number, file in enumerate(source.files, 1):
            shutil.copyfile(file.path, target / file.name)
            progress(number, len(source.files), "files", "copy")
        self.changed(target)
        size = sum(file.bytes for file in source.files)
        return {"version": self.version_of(target), "bytes": size, "files": len(source.files)}

    def send(self, path: str, target: str, recipe: Any, progress: Any) -> dict[str, Any]:
        self.existing(path)
        raise BadArgument(f"{target} is no address", name="out")

    def stage(self, path: str) -> tuple[str, Path]:
        token = f"stage{next(self.numbers)}"
        folder = self.root.parent / token
        folder.mkdir()
        self.staged[token] = folder, self.at(path)
        return token, folder

    def commit(self, token: str, manifest: Mapping[str, Any], expected_version: str | None = None) -> str:
        folder, target = self.staged[token]
        if expected_version not in (None, self.version_of(target)):
            raise Conflict("changed", version=self.version_of(target))
        shutil.copytree(folder, target, dirs_exist_ok=True)
        self.changed(target)
        return self.version_of(target)


@pytest.fixture
def tree() -> type[Tree]:
    """A class of file systems that is sound."""
    return Tree


@pytest.fixture
def filesystem_bench(folder: Path) -> Callable[..., FileSystemBench]:
    """`filesystem_bench(FileSystemClass)`: a bench with a new folder holding a text and a model."""
    numbers = count(1)

    def make(kind: Callable[[Path], FileSystem] = Tree) -> FileSystemBench:
        root = folder / f"root{next(numbers)}" / "r"
        (root / "m").mkdir(parents=True)
        (root / "hello.txt").write_bytes(b"hello world")
        (root / "m" / "config.json").write_bytes(b"{}")
        return FileSystemBench(kind(root))

    return make

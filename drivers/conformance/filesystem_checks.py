"""What holds for every file system. Checks that write do so below one name and remove it again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from llmos.drivers import convert
from llmos.drivers.contract import FileInfo, FileSystem, SourceFile
from llmos.syscalls.errors import (
    BadArgument, Conflict, Exists, LlmosError, NotDirectory, NotFound, NotSupported, ReadOnly,
)  # fmt: skip

from .verdicts import Absent, Broken, expect, expect_error, expect_sendable, optional

MISSING = "/conformance-no-such-thing"
WRITTEN = "/conformance-check.txt"
MODEL = "/conformance-check"
MANIFEST = "manifest.json"
"""The book-keeping of a file system: it says where a model comes from, so it is written anew."""
RECIPE: Mapping[str, Any] = {"kind": "import", "format": "", "options": {}}
NOWHERE = "conformance://nowhere/at-all"
ESCAPES = ("/..", "/../etc/passwd", "/conformance/../../etc", "relative", "/conformance/./../..", "/a\0b")
KINDS = ("file", "folder", "model")


class FileSystemBench:
    """The file system of one source."""

    def __init__(self, system: FileSystem) -> None:
        self.system = system

    def walk(self, path: str = "/", depth: int = 3) -> Iterator[FileInfo]:
        """Everything below a path, at most three folders deep."""
        for info in self.system.list(path):
            yield info
            if depth and info.kind in ("folder", "model"):
                yield from self.walk(info.path, depth - 1)

    def first(self, kind: str) -> FileInfo:
        """Raises Absent when there is none."""
        for info in self.walk():
            if info.kind == kind:
                return info
        raise Absent(f"the source holds no {kind}")

    def content(self, path: str) -> bytes:
        handle = self.system.open(path, "r")
        data = handle.read(0, handle.bytes)
        handle.close()
        return data

    def write(self, path: str, data: bytes, mode: str = "w") -> str:
        handle = self.system.open(path, mode)
        handle.write(0 if mode != "a" else handle.bytes, data)
        return handle.close()

    def exists(self, path: str) -> bool:
        try:
            self.system.stat(path)
        except NotFound:
            return False
        return True

    def close(self) -> None:
        """A file system has no end of its own."""


def root(bench: FileSystemBench) -> None:
    """list: entries directly below the folder, in order of path"""
    infos = list(bench.system.list("/"))
    paths = [info.path for info in infos]
    expect(paths == sorted(paths), f"list('/') is not in order: {paths}")
    expect(len(set(paths)) == len(paths), f"list('/') repeats a path: {paths}")
    for info in infos:
        expect(info.path.startswith("/") and info.path.count("/") == 1, f"{info.path!r} is not directly below /")
        expect(info.kind in KINDS, f"{info.path}: kind {info.kind!r}; known are {', '.join(KINDS)}")
        expect_sendable("an entry", convert.from_info(info))


def stat(bench: FileSystemBench) -> None:
    """stat: says what list says"""
    expect(bench.system.stat("/").kind == "folder", "stat('/') is no folder")
    for info in bench.system.list("/"):
        found = bench.system.stat(info.path)
        same = (found.path, found.kind, found.bytes) == (info.path, info.kind, info.bytes)
        expect(same, f"stat says {found}, list says {info}")


def pages(bench: FileSystemBench) -> None:
    """list: goes on after a path"""
    paths = [info.path for info in bench.system.list("/")]
    for at, path in enumerate(paths[:3]):
        rest = [info.path for info in bench.system.list("/", after=path)]
        expect(rest == paths[at + 1 :], f"after {path!r} comes {rest}, not {paths[at + 1:]}")


def missing(bench: FileSystemBench) -> None:
    """what does not exist: NotFound"""
    system = bench.system
    expect_error("stat", lambda: system.stat(MISSING), NotFound)
    expect_error("open", lambda: system.open(MISSING, "r"), NotFound)
    expect_error("list", lambda: system.list(MISSING), NotFound, NotDirectory)
    expect_error("locate", lambda: system.locate(MISSING), NotFound, NotSupported)
    expect_error("remove", lambda: system.remove(MISSING), NotFound, NotSupported, ReadOnly)


def escapes(bench: FileSystemBench) -> None:
    """paths that lead out of the source: refused"""
    system = bench.system
    actions: dict[str, Callable[[str], object]] = {
        "stat": system.stat, "list": system.list, "open": lambda path: system.open(path, "r"), "locate": system.locate,
        "stage": system.stage, "remove": system.remove,
    }  # fmt: skip
    for path in ESCAPES:
        for name, action in actions.items():
            expect_error(f"{name}({path!r})", partial(action, path), LlmosError)


def not_a_folder(bench: FileSystemBench) -> None:
    """list of a file: NotDirectory"""
    info = bench.first("file")
    expect_error(f"list({info.path!r})", lambda: bench.system.list(info.path), NotDirectory)


def reads(bench: FileSystemBench) -> None:
    """open, read: the same bytes whole and in pieces, nothing after the end"""
    info = bench.first("file")
    handle = bench.system.open(info.path, "r")
    expect(handle.bytes == info.bytes, f"{info.path} has {info.bytes} bytes, the handle says {handle.bytes}")
    whole = handle.read(0, handle.bytes)
    expect(len(whole) == handle.bytes, f"reading {handle.bytes} bytes gave {len(whole)}")
    half = len(whole) // 2
    expect(handle.read(half, len(whole)) == whole[half:], "reading from the middle gave other bytes")
    expect(handle.read(len(whole), 10) == b"", "reading at the end gave bytes")
    expect(handle.close() == handle.version, "close() of an unchanged file returned another version")


def no_write_to_read(bench: FileSystemBench) -> None:
    """a file opened for reading cannot be written"""
    handle = bench.system.open(bench.first("file").path, "r")
    expect_error("write", lambda: handle.write(0, b"x"), NotSupported, ReadOnly, LlmosError)
    handle.close()


def bad_mode(bench: FileSystemBench) -> None:
    """an unknown mode: refused"""
    path = bench.first("file").path
    expect_error("mode 'q'", lambda: bench.system.open(path, "q"), BadArgument, NotSupported, ReadOnly)


def writes(bench: FileSystemBench) -> None:
    """open for writing: visible at close, and not at all at discard"""
    system = bench.system
    _needs_writing(bench)
    handle = system.open(WRITTEN, "w")
    handle.write(0, b"hello ")
    handle.write(6, memoryview(b"world"))
    expect(not bench.exists(WRITTEN), "what is being written is visible before close")
    version = handle.close()
    expect(bench.content(WRITTEN) == b"hello world", f"the file holds {bench.content(WRITTEN)!r}")
    expect(system.stat(WRITTEN).bytes == 11, f"stat says {system.stat(WRITTEN).bytes} bytes, 11 were written")
    expect_error("mode x on a file", lambda: system.open(WRITTEN, "x"), Exists)
    other = system.open(WRITTEN, "w")
    other.write(0, b"dropped")
    other.discard()
    expect(bench.content(WRITTEN) == b"hello world", "discard() changed the file")
    bench.write(WRITTEN, b"!", "a")
    expect(bench.content(WRITTEN) == b"hello world!", f"appending gave {bench.content(WRITTEN)!r}")
    expect_error("an old version", lambda: _rewrite(system, version), Conflict)
    system.remove(WRITTEN)
    expect(not bench.exists(WRITTEN), "a removed file is still there")


def locates(bench: FileSystemBench) -> None:
    """locate: readable files of this machine, until release"""
    info = _model(bench)
    token, source = bench.system.locate(info.path)
    expect(bool(source.files), f"locate({info.path!r}) gives no files")
    expect_sendable("a located model", convert.from_source(source, token))
    for file in source.files:
        path = Path(file.path)
        expect(path.is_absolute() and path.is_file(), f"{file.path} is no file of this machine")
        expect(path.stat().st_size >= file.offset + file.bytes, f"{file.path} is shorter than {file.bytes} bytes")
    bench.system.release(token)


def commits(bench: FileSystemBench) -> None:
    """stage, commit: a result becomes a new version, or a conflict"""
    system = bench.system
    info = _model(bench)
    try:
        token, folder = system.stage(MODEL)
    except (NotSupported, ReadOnly) as error:
        raise Absent(f"stage: {error}") from error
    expect(folder.is_dir() and not list(folder.iterdir()), f"the staged folder {folder} is not an empty folder")
    kept, source = system.locate(info.path)
    for file in source.files:
        (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, folder / file.name)
    expect(not bench.exists(MODEL), "what is staged is visible before commit")
    version = system.commit(token, {})
    system.release(kept)
    expect(bench.exists(MODEL), f"{MODEL} is not there after commit")
    again, located = system.locate(MODEL)
    lost = {file.name for file in source.files} - {file.name for file in located.files}
    expect(not lost, f"{sorted(lost)} are missing after commit")
    expect(located.version == version, f"commit said version {version!r}, locate says {located.version!r}")
    system.release(again)
    late, _folder = system.stage(MODEL)
    expect_error("commit to another version", lambda: system.commit(late, {}, "no-such-version"), LlmosError)
    system.release(late)
    system.remove(MODEL)
    expect(not bench.exists(MODEL), "a removed model is still there")


def searches(bench: FileSystemBench) -> None:
    """search: best first"""
    with optional("search"):
        found = list(bench.system.search("/", "hello", {}, 5))
    scores = [hit.score for hit in found]
    expect(len(found) <= 5, f"5 hits were wanted, {len(found)} came")
    expect(scores == sorted(scores, reverse=True), f"scores are not in order: {scores}")
    for hit in found:
        expect_sendable("a hit", convert.from_found(hit))


def brings(bench: FileSystemBench) -> None:
    """bring: located files become a model, whole; what nobody fetches is refused, and leaves nothing"""
    system, told = bench.system, list[tuple[int, int]]()
    kept, source = system.locate(_model(bench).path)
    try:
        with optional("bring"):
            answer = system.bring(MODEL, [source], RECIPE, lambda done, total, *_names: told.append((done, total)))
    except ReadOnly as error:
        raise Absent(f"bring: {error}") from error
    finally:
        system.release(kept)
    expect_sendable("the answer of bring", dict(answer))
    lacks = {"version", "bytes", "files"} - answer.keys()
    expect(not lacks, f"the answer of bring lacks {sorted(lacks)}")
    token, located = system.locate(MODEL)
    expect(located.version == answer["version"], f"bring said {answer['version']!r}, locate {located.version!r}")
    found = {file.name: file for file in located.files}
    for file in source.files:
        expect(file.name in found, f"{file.name} is missing after bring")
        same = file.name == MANIFEST or _bytes(found[file.name]) == _bytes(file)
        expect(same, f"{file.name} has another content after bring")
    system.release(token)
    expect(all(0 <= done <= total or not total for done, total in told), f"its progress went beyond its end: {told}")
    system.remove(MODEL)
    foreign = partial(system.bring, MODEL, [NOWHERE], RECIPE, lambda *_said: None)
    expect_error(f"bring from {NOWHERE}", foreign, NotSupported, BadArgument)
    expect(not bench.exists(MODEL), "a bring that failed left something behind")


def sends(bench: FileSystemBench) -> None:
    """send: a target that is no address and a path that is nothing are refused"""
    system = bench.system
    wrong = partial(system.send, _model(bench).path, NOWHERE, RECIPE, lambda *_said: None)
    error = expect_error(f"send to {NOWHERE}", wrong, NotSupported, BadArgument)
    if isinstance(error, NotSupported):
        raise Absent(f"send: {error}")
    nothing = partial(system.send, MISSING, NOWHERE, RECIPE, lambda *_said: None)
    expect_error("send of what is not there", nothing, NotFound, BadArgument)


def unknown_action(bench: FileSystemBench) -> None:
    """an unknown action: NotSupported"""
    expect_error("control", lambda: bench.system.control("paint", {}), NotSupported, BadArgument)


def _needs_writing(bench: FileSystemBench) -> None:
    try:
        bench.system.open(WRITTEN, "w").discard()
    except (ReadOnly, NotSupported) as error:
        raise Absent(f"writing files: {error}") from error


def _rewrite(system: FileSystem, version: str) -> None:
    handle = system.open(WRITTEN, "w", version)
    handle.write(0, b"late")
    try:
        handle.close()
    except LlmosError:
        handle.discard()
        raise
    raise Broken("writing over a newer version was accepted")


def _bytes(file: SourceFile) -> bytes:
    with file.path.open("rb") as opened:
        opened.seek(file.offset)
        return opened.read(file.bytes)


def _model(bench: FileSystemBench) -> FileInfo:
    return bench.first("model")


FILESYSTEM_CHECKS: tuple[Callable[[FileSystemBench], None], ...] = (
    root, stat, pages, missing, escapes, not_a_folder, reads, no_write_to_read, bad_mode, writes, locates, commits,
    searches, brings, sends, unknown_action,
)  # fmt: skip

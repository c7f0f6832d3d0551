"""The kernel's calls to a file system, carried out on one `contract.FileSystem` per source."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from llmos.syscalls.driver import (
    Folder, FsReport, HostClose, HostCommit, HostFsControl, HostList, HostLocate, HostOpen, HostRead, HostRelease,
    HostRemove, HostSearch, HostStage, HostStat, HostWrite, Located, Memory, MetricEvent, Opened, Ready, Stats, Version,
)  # fmt: skip
from llmos.syscalls.errors import BadArgument, LlmosError, NotFound
from llmos.syscalls.spec import Call
from llmos.syscalls.types import BufferOut, Data, Done, Entry, Handle, Hit, Written

from . import contract, convert
from .buffers import Buffers
from .filesystems.paths import file_errors

FILE_S = 30.0
LONG_S = 600.0
"""For calls that read or write whole models: checking 100 GB takes minutes, as does the first index of many models."""

T = TypeVar("T")


class FileCalls:
    """Serves one file system driver. All methods but `cancel` and `stats` belong to the work thread."""

    STARTS_WORK: ClassVar[tuple[type[Call[Any]], ...]] = (HostOpen, HostStage, HostLocate)
    """Refused while draining."""
    CHANGES_MEMORY: ClassVar[tuple[type[Call[Any]], ...]] = ()
    LONG: ClassVar[tuple[type[Call[Any]], ...]] = (HostLocate, HostStage, HostCommit, HostFsControl, HostSearch)
    """May take long enough for control calls to need a thread of their own."""

    def __init__(self, name: str, factory: contract.FileSystemFactory, config: Mapping[str, Any]) -> None:
        self.ending = False
        self._name = name
        self._factory = factory
        self._config = config
        self._sources: dict[str, contract.FileSystem] = {}
        self._open: dict[str, contract.OpenHandle] = {}
        self._located: dict[str, tuple[contract.FileSystem, str]] = {}
        self._staged: dict[str, tuple[contract.FileSystem, str]] = {}
        self._numbers = itertools.count(1)
        self._sources_of_writes = Buffers()
        self._targets_of_reads = Buffers(writable=True)
        self._calls = 0
        self._handlers: Mapping[type[Call[Any]], Callable[[int, Any], Any]] = {
            HostOpen: self._open_file,
            HostRead: self._read,
            HostWrite: self._write,
            HostClose: self._close,
            HostList: self._list,
            HostStat: self._stat,
            HostRemove: self._remove,
            HostSearch: self._search,
            HostLocate: self._locate,
            HostRelease: self._release,
            HostStage: self._stage,
            HostCommit: self._commit,
            HostFsControl: self._control,
        }

    @property
    def handlers(self) -> Mapping[type[Call[Any]], Callable[[int, Any], Any]]:
        """What to do for each call: called with the call's number."""
        return self._handlers

    @property
    def busy(self) -> bool:
        """Every call is answered at once."""
        return False

    @property
    def pause(self) -> float:
        return 0.0

    def ready(self, memory_limit: int) -> Ready:
        return Ready(filesystem=self._name)

    def limit(self, call: Call[Any]) -> float:
        """Seconds this call may take."""
        return LONG_S if isinstance(call, HostLocate | HostCommit | HostFsControl | HostSearch) else FILE_S

    def step_seconds(self) -> float:
        return 0.0

    def step(self) -> None:
        raise AssertionError("a file system has no steps")

    def cancel(self, request: str) -> None:
        """A call of a file system is not interrupted."""

    def stats(self) -> Stats:
        values = {"calls": self._calls, "open": len(self._open), "located": len(self._located)}
        return Stats(values={name: float(value) for name, value in values.items()})

    def memory(self) -> Memory | None:
        return None

    def metrics(self) -> list[MetricEvent]:
        return [MetricEvent(about=self._name, values=self.stats().values)]

    def idle(self) -> None:
        """A second passed without work."""
        self._sources_of_writes.prune()
        self._targets_of_reads.prune()

    def close(self) -> None:
        """Drop what is half written and release what was located."""
        for handle in self._open.values():
            handle.discard()
        for system, token in (*self._located.values(), *self._staged.values()):
            system.release(token)

    # ---- helpers

    def _system(self, source: str) -> contract.FileSystem:
        self._calls += 1
        if source not in self._sources:
            self._sources[source] = self._factory(source, self._config)
        return self._sources[source]

    def _token(self, kind: str) -> str:
        return f"{kind}{next(self._numbers)}"

    def _opened(self, token: str) -> contract.OpenHandle:
        self._calls += 1
        return _known(self._open, token)

    # ---- files

    def _open_file(self, _number: int, call: HostOpen) -> Opened:
        handle = self._system(call.source).open(_path(call.path), call.mode, call.expected_version)
        token = self._token("file")
        self._open[token] = handle
        return Opened(token=token, bytes=handle.bytes, version=handle.version)

    def _read(self, _number: int, call: HostRead) -> Data:
        handle = self._opened(call.token)
        _not_negative(offset=call.offset, count=call.count)
        if call.into is None:
            data = handle.read(call.offset, call.count)
            return Data(data=data, eof=call.offset + len(data) >= handle.bytes)
        target = self._targets_of_reads.view(call.into).slice(0, call.into.bytes)
        data = handle.read(call.offset, min(call.count, len(target)))
        target[: len(data)] = data
        return Data(
            data=BufferOut(buffer=Handle(0), length=len(data)),
            eof=call.offset + len(data) >= handle.bytes,
            path=call.into.path,
        )

    def _write(self, _number: int, call: HostWrite) -> Written:
        handle = self._opened(call.token)
        _not_negative(offset=call.offset, source_offset=call.source_offset, source_length=call.source_length)
        data: bytes | memoryview = call.data
        if call.source is not None:
            data = self._sources_of_writes.view(call.source).slice(call.source_offset, call.source_length)
        return Written(count=handle.write(call.offset, data))

    def _close(self, _number: int, call: HostClose) -> Version:
        handle = self._opened(call.token)
        del self._open[call.token]
        if call.discard:
            handle.discard()
            return Version(version=handle.version)
        return Version(version=handle.close())

    # ---- names

    def _list(self, _number: int, call: HostList) -> list[Entry]:
        return [convert.from_info(info) for info in self._system(call.source).list(_path(call.path), call.after)]

    def _stat(self, _number: int, call: HostStat) -> Entry:
        return convert.from_info(self._system(call.source).stat(_path(call.path)))

    def _remove(self, _number: int, call: HostRemove) -> Done:
        self._system(call.source).remove(_path(call.path))
        return Done()

    def _search(self, _number: int, call: HostSearch) -> list[Hit]:
        found = self._system(call.source).search(_path(call.path), call.query, call.filters, call.limit)
        return [convert.from_found(hit) for hit in found]

    # ---- models

    def _locate(self, _number: int, call: HostLocate) -> Located:
        system = self._system(call.source)
        inner, source = system.locate(_path(call.path), call.version)
        token = self._token("located")
        self._located[token] = system, inner
        return convert.from_source(source, token)

    def _release(self, _number: int, call: HostRelease) -> Done:
        table = self._staged if call.token in self._staged else self._located
        system, token = _known(table, call.token)
        del table[call.token]
        system.release(token)
        return Done()

    def _stage(self, _number: int, call: HostStage) -> Folder:
        system = self._system(call.source)
        inner, folder = system.stage(_path(call.path))
        if call.take:
            try:
                _take(Path(call.take), folder, call.path)
            except LlmosError:
                system.release(inner)
                raise
        token = self._token("staged")
        self._staged[token] = system, inner
        return Folder(path=str(folder), token=token)

    def _commit(self, _number: int, call: HostCommit) -> Version:
        system, token = _known(self._staged, call.token)
        version = system.commit(token, call.manifest, call.expected_version)
        del self._staged[call.token]
        return Version(version=version)

    def _control(self, _number: int, call: HostFsControl) -> FsReport:
        return FsReport(fields=dict(self._system(call.source).control(call.action, call.options)))


def _known(table: Mapping[str, T], token: str) -> T:
    try:
        return table[token]
    except KeyError:
        raise NotFound(f"token {token!r} names nothing open here; the driver may have been restarted") from None


def _take(source: Path, folder: Path, path: str) -> None:
    """Put the files of one folder into another, as links where both lie on one disk. Raises NotFound, NoSpace."""
    if not source.is_dir():
        raise NotFound(f"there is no folder {source} to take for {path}")
    with file_errors(path, writing=True):
        for file in [each for each in source.rglob("*") if each.is_file()]:
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, target)
            except OSError:
                shutil.copyfile(file, target)


def _path(path: str) -> str:
    """The path, if it is absolute and normal; the kernel sends no other, and a driver must not depend on that."""
    names = path[1:].split("/") if path != "/" else []
    if not path.startswith("/") or "\0" in path or {"", ".", ".."} & set(names):
        raise BadArgument(f"path {path!r} is not an absolute, normalised path", name="path", got=path, want="/a/b")
    return path


def _not_negative(**values: int) -> None:
    for name, value in values.items():
        if value < 0:
            raise BadArgument(f"{name} is {value}; expected 0 or more", name=name, got=str(value), want="0 or more")

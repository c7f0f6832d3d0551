"""Rows of files, one at a time, each with the file and the line it stands in."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from llmos.syscalls.errors import BadArgument, NotSupported

from ...contract import SourceFile

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TEXTS = (".txt", ".text", ".md", ".rst")
HELD_OUT = ("validation", "valid", "val", "dev", "eval", "test", "held_out")
"""Names of files that are not trained on where they stand beside others."""

COLUMN = "text"
"""What a file of plain text is the value of."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in a file. `held_out`: its file says that it is for evaluation."""

    values: Mapping[str, Any]
    file: str
    line: int
    held_out: bool = False

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def refused(place: str, why: str, want: str, got: object = "") -> BadArgument:
    """What is wrong with the data, where, and what to do."""
    shown = "" if got == "" else f" ({_short(got)})"
    return BadArgument(f"{place}: {why}{shown}; {want}", name="data", got=place, want=want)


class DataSource:
    """The files at a path: JSON lines, a JSON list, CSV or Parquet; where there is none of them, plain texts.

    Each iteration reads the files again, in the order of their names.
    """

    def __init__(self, path: str, files: Sequence[SourceFile]) -> None:
        """Raises BadArgument when no file can be read, NotSupported for Parquet without pyarrow."""
        by_name = sorted(files, key=lambda file: file.name)
        tables = [file for file in by_name if _suffix(file) in TABLES]
        self.path = path
        self.files = tables or [file for file in by_name if _suffix(file) in TEXTS]
        self.ignored = [file.name for file in by_name if file not in self.files]
        self.texts = not tables
        if not self.files:
            want = f"files that end in {', '.join(TABLES + TEXTS)}"
            there = ", ".join(self.ignored[:5]) or "nothing"
            raise BadArgument(f"{path} holds {there}; training data are {want}", name="data", got=there, want=want)
        if any(_suffix(file) == ".parquet" for file in tables) and importlib.util.find_spec("pyarrow") is None:
            why = "pyarrow is not installed: install llmos[data], or convert the file to JSON lines"
            raise NotSupported(f"{path} is Parquet; {why}", why=why)

    @property
    def facts(self) -> dict[str, Any]:
        formats = sorted({_suffix(file)[1:] for file in self.files})
        size = sum(file.bytes for file in self.files)
        return {"format": ", ".join(formats), "files": len(self.files), "bytes": size, "ignored": self.ignored}

    def __iter__(self) -> Iterator[Row]:
        held_out = [self._for_evaluation(file) for file in self.files]
        for file, held in zip(self.files, held_out, strict=True):
            apart = held and not all(held_out)
            for line, values in _READERS[_suffix(file)](file):
                if not isinstance(values, dict):
                    raise refused(f"{file.name}:{line}", "a row is a JSON object", 'such as {"text": "..."}', values)
                yield Row(values, file.name, line, apart)

    @staticmethod
    def _for_evaluation(file: SourceFile) -> bool:
        return PurePosixPath(file.name).stem.split("-")[0].lower() in HELD_OUT


def _json_lines(file: SourceFile) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(_lines(file), 1):
        if text.strip():
            yield line, _parsed(f"{file.name}:{line}", text)


def _json_list(file: SourceFile) -> Iterator[tuple[int, Any]]:
    """The line is the number of the row."""
    value = _parsed(file.name, "".join(_lines(file)))
    if not isinstance(value, list):
        raise refused(file.name, "a .json file is one list of objects", "name it .jsonl if it has one object a line")
    yield from enumerate(value, 1)


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused(place, f"not JSON: {error}", "mend or remove the line", text) from error


def _table(file: SourceFile) -> Iterator[tuple[int, Any]]:
    """The line is the last one of the row."""
    with closing(_lines(file)) as lines:
        rows = csv.reader(lines, delimiter="\t" if _suffix(file) == ".tsv" else ",", strict=True)
        try:
            names = next(rows, [])
            if len(set(names)) < len(names):
                raise refused(f"{file.name}:1", "two columns have the same name", "rename one", ", ".join(names))
            for fields in filter(None, rows):
                if len(fields) != len(names):
                    why = f"the row has {len(fields)} fields, the first line {len(names)}"
                    raise refused(f"{file.name}:{rows.line_num}", why, "quote fields that hold separators")
                yield rows.line_num, dict(zip(names, fields, strict=True))
        except csv.Error as error:
            want = "mend it, or use JSON lines, which hold texts of any length"
            raise refused(f"{file.name}:{rows.line_num}", str(error), want) from error


def _parquet(file: SourceFile) -> Iterator[tuple[int, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with _Window(file) as window:
            line = 0
            for batch in parquet.ParquetFile(window).iter_batches(batch_size=256):
                for line, values in enumerate(batch.to_pylist(), line + 1):  # noqa: B020
                    yield line, values
    except pyarrow.ArrowException as error:
        raise refused(file.name, f"not Parquet: {error}", "write it again") from error


def _text(file: SourceFile) -> Iterator[tuple[int, Any]]:
    text = "".join(_lines(file))
    if text.strip():
        yield 1, {COLUMN: text}


def _lines(file: SourceFile) -> Generator[str, None, None]:
    """The lines of a file of UTF-8, their ends included."""
    with io.BufferedReader(_Window(file)) as stream:
        for line, data in enumerate(stream, 1):
            try:
                yield data.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                want = "save the file as UTF-8"
                raise refused(f"{file.name}:{line}", f"not UTF-8: {error.reason}", want) from error


class _Window(io.RawIOBase):
    """The bytes of a located file, which may lie within another."""

    def __init__(self, file: SourceFile) -> None:
        try:
            self._stream = file.path.open("rb")
        except OSError as error:
            raise refused(file.name, f"cannot be read: {error.strerror}", "check that it is still there") from error
        self._first, self._bytes, self._at = file.offset, file.bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._bytes}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._first + self._at)
        data = self._stream.read(min(len(buffer), max(0, self._bytes - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


_READERS = {
    ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json_list, ".csv": _table, ".tsv": _table,
    ".parquet": _parquet, **dict.fromkeys(TEXTS, _text),
}  # fmt: skip


def _suffix(file: SourceFile) -> str:
    return PurePosixPath(file.name).suffix.lower()


def _short(value: object) -> str:
    text = value.strip() if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

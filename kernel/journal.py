"""What happened and why: a ring in memory for reading at once, and a SQLite file that outlives the process.

`write` never waits: records go to the ring, to stderr when it takes them, and to a batch that `flush` stores about
once a second. A full disk or a broken file costs durability, never the kernel: it is said once and tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmos.syscalls.types import Reason, Record

from .console import Console

if TYPE_CHECKING:
    from .store import Store


LEVELS = ("debug", "info", "warning", "error")
_RANK = {level: rank for rank, level in enumerate(LEVELS)}
_BATCH = 1000
MAX_TEXT = 8192
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class Journal:
    """The journal of one kernel. Sequence numbers go on where an earlier process with the same file ended."""

    def __init__(
        self,
        ring_size: int,
        path: Path | None,
        clock: Callable[[], float],
        console: Console | None = None,
        max_bytes: int = 64 << 20,
    ) -> None:
        """`path` None keeps nothing on disk; `clock` gives seconds since the epoch; `max_bytes` bounds the file."""
        self._clock = clock
        self._console = console
        self._ring: deque[Record] = deque(maxlen=ring_size)
        self._pending: deque[Record] = deque(maxlen=ring_size)
        self._failing = False
        self._lost = 0
        self._seq = 0
        self._store: Store | None = None
        self.observer: Callable[[Record], object] | None = None
        """Told of each record with reasons."""
        if path is not None:
            self._open(path, max_bytes)

    def write(
        self,
        unit: str,
        level: str,
        text: str,
        about: str = "",
        reasons: Iterable[Reason] = (),
        also: Sequence[str] = (),
        **fields: Any,
    ) -> Record:
        """Add one record. `unit` is the part that speaks, `about` the stable id or name of what it speaks of; it is
        found by the ids `also`, a field of the record, as well.

        Texts of more than 8192 characters are cut, and what cannot be stored as text is replaced by its repr.
        """
        if level not in _RANK:
            raise ValueError(f"level {level!r} is none of {', '.join(LEVELS)}")
        said = {**fields, "also": list(also)} if also else fields
        record = cleaned(
            Record(
                seq=self.number(), at=self._clock(), unit=unit, level=level, about=about, text=text, fields=said,
                reasons=list(reasons),
            )
        )  # fmt: skip
        self._ring.append(record)
        if self._store is not None:
            if len(self._pending) == self._pending.maxlen:
                self._lost += 1
            self._pending.append(record)
        if self._console is not None:
            self._console.show(record)
        if self.observer is not None and record.reasons:
            self.observer(record)
        return record

    def read(self, after: int = 0, about: str = "", level: str = "debug", limit: int = 100) -> list[Record]:
        """Records after a sequence number, oldest first; `after=-1` gives the newest. At least as severe as `level`."""
        levels = LEVELS[_RANK[level] :]
        kept = [r for r in self._ring if r.seq > after and r.level in levels and _is_about(r, about)]
        first = self._ring[0].seq if self._ring else self._seq + 1
        if after < 0:
            missing = limit - len(kept)
            older = self._stored(after, first, about, levels, missing, newest=True) if missing > 0 else []
            return older + kept[max(len(kept) - limit, 0) :]
        older = self._stored(after, first, about, levels, limit, newest=False) if after + 1 < first else []
        return (older + kept)[:limit]

    def number(self, count: int = 1) -> int:
        """The next sequence number, for a record that is kept elsewhere; the journal has a gap there. With a `count`,
        the first of as many."""
        self._seq += count
        return self._seq - count + 1

    @property
    def last(self) -> int:
        """The newest sequence number."""
        return self._seq

    @property
    def unsaved(self) -> int:
        """How many records wait for `flush`."""
        return len(self._pending)

    def flush(self) -> bool:
        """Store what waits, a bounded batch at a time; False when that failed. Call it about once a second."""
        if self._store is None or not self._pending:
            return True
        batch = [self._pending[i] for i in range(min(len(self._pending), _BATCH))]
        try:
            self._store.append(batch)
        except OSError as error:
            self._report(error)
            return False
        for _ in batch:
            self._pending.popleft()
        if self._failing:
            self._failing = False
            self.write(
                "journal", "warning", f"the journal is stored again; {self._lost} records were not", lost=self._lost
            )
            self._lost = 0
        return True

    def close(self) -> None:
        """Store everything that waits and close the file. Writing goes on in memory only."""
        while self._pending and self.flush():
            pass
        if self._store is not None:
            self._store.close()
            self._store = None
            self._pending.clear()

    def _open(self, path: Path, max_bytes: int) -> None:
        from .store import Store  # sqlite3 costs start-up time, so only when there is a file

        try:
            self._store = Store(path, max_bytes)
        except OSError as error:
            self._report(error)
            return
        self._seq = self._store.last
        if self._store.damaged is not None:
            self.write(
                "journal", "warning", f"{path} was damaged; it was moved to {self._store.damaged} and a new one begun"
            )

    def _report(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self.write("journal", "error", f"the journal cannot be stored, it goes on in memory: {error}")

    def _stored(
        self, after: int, before: int, about: str, levels: tuple[str, ...], limit: int, newest: bool
    ) -> list[Record]:
        """Records that have left the ring."""
        if self._store is None:
            return []
        try:
            return self._store.read(after, before, about, levels, limit, newest)
        except OSError as error:
            self._report(error)
            return []


def cleaned(record: Record) -> Record:
    """A record that every reader takes and that can be stored; what it holds is copied."""
    fields = _plain(record.fields)
    if not isinstance(fields.get("also", []), list):
        del fields["also"]
    return Record(
        seq=record.seq, at=record.at, unit=_clean(record.unit), level=record.level, about=_clean(record.about),
        text=_clean(record.text), fields=fields, reasons=[_plain_reason(reason) for reason in record.reasons],
    )  # fmt: skip


def _is_about(record: Record, id: str) -> bool:
    return id in ("", record.about) or id in record.fields.get("also", ())


def _clean(text: str) -> str:
    """Text that every reader takes: no lone surrogates (from undecodable file names), and not too long."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + f"... ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields as plain types that survive msgpack and JSON."""
    try:
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(fields))
        msgspec.msgpack.encode(plain)
    except _UNENCODABLE:
        plain = {_clean(name): _clean(repr(value)) for name, value in fields.items()}
    return plain


def _plain_reason(reason: Reason) -> Reason:
    if len(reason.text) > MAX_TEXT:
        reason = msgspec.structs.replace(reason, text=_clean(reason.text))
    try:
        msgspec.msgpack.encode(msgspec.json.decode(msgspec.json.encode(reason), type=Reason))
    except _UNENCODABLE:
        return Reason(
            code=_clean(reason.code),
            text=_clean(reason.text),
            numbers={_clean(name): _clean(str(value)) for name, value in reason.numbers.items()},
            rule=_clean(reason.rule),
            at=reason.at,
            change=_clean(reason.change),
        )
    return reason

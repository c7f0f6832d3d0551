"""The decisions of the kernel, each with its reason, kept by what they are about.

All of them stay in memory, a bounded number for each of a bounded number of ids, the oldest ids leaving first; so
`why` also answers for a request that has ended. Those of the level info and above go to the journal too. The ones on
the path of every request are of the level debug: they cost a record in memory and nothing on disk. Requests that were
turned away cost less than that, and have their own room (`Refusals`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from llmos.syscalls.errors import Busy, OverQuota
from llmos.syscalls.types import Reason, Record

from ..journal import MAX_TEXT, Journal, cleaned
from .codes import change
from .refusals import Refusals, Refused, cause, unit_of

IDS = 2000
EACH = 32
RECENT = 1000
COUNTED = ("model.evicted", "memory.refused", "request.done")
"""Codes of which the newest are kept for advice."""


class Decisions:
    """What was decided, by id."""

    def __init__(self, journal: Journal, wall: Callable[[], float], ids: int = IDS, each: int = EACH) -> None:
        """`wall` gives seconds since the epoch; `ids` and `each` bound how many ids, and decisions of one, are kept."""
        self._journal = journal
        self._wall = wall
        self._ids = ids
        self._each = each
        self._by_id: OrderedDict[str, deque[Record]] = OrderedDict()
        self._refusals = Refusals(ids)
        self._recent: dict[str, deque[tuple[Record, Reason]]] = {code: deque(maxlen=RECENT) for code in COUNTED}
        journal.observer = self._keep

    def complete(self, reason: Reason) -> Reason:
        """A reason of a pure policy, which knows no wall clock, with the time and with what would change it."""
        if reason.at and reason.change:
            return reason
        return replace(reason, at=reason.at or self._wall(), change=reason.change or change(reason.code))

    def decide(self, about: Sequence[str], reason: Reason, level: str = "info", see: Sequence[str] = ()) -> Reason:
        """Keep a decision. `about` are the ids of what it concerns, the one that it is mainly about first; those of
        `see` have decisions of their own that explain it."""
        reason = self.complete(reason)
        if level == "debug":
            self.note(about, reason, see)
        else:
            first, *also = about
            fields = {"see": list(see)} if see else {}
            self._journal.write(unit_of(reason), level, reason.text, first, [reason], also, **fields)
        return reason

    def note(self, about: Sequence[str], reason: Reason, see: Sequence[str] = ()) -> None:
        """Keep a decision of the level debug: on the path of every request, so what can be made up later is."""
        first, *also = about
        fields = {"also": also} if also else {}
        if see:
            fields["see"] = list(see)
        record = Record(
            seq=self._journal.number(), at=reason.at or self._wall(), unit=unit_of(reason), level="debug", about=first,
            text=reason.text, fields=fields, reasons=[reason],
        )  # fmt: skip
        self._keep(cleaned(record) if len(reason.text) > MAX_TEXT else record)

    def refused(
        self,
        call: str,
        about: Sequence[str],
        error: Busy | OverQuota,
        answer: bytes,
        seconds: float,
        known: int = 0,
    ) -> None:
        """Keep that a request was turned away with that error so long after it came, and with that body of an answer,
        whose first `known` reasons were decided before. `about` are its own id and those of its session, its owner, and
        what it named."""
        first = self._journal.number(1 + len(error.reasons))
        quota = (error.what, error.limit) if isinstance(error, OverQuota) else None
        refused = Refused(first, self._wall(), call, tuple(about), answer, known, seconds, quota)
        self._refusals.add(refused, cause(call, error))

    def refused_since(self, at: float) -> list[Refused]:
        """Requests that were turned away after a time (seconds since the epoch), of the newest."""
        return self._refusals.since(at)

    def _keep(self, record: Record) -> None:
        """Take up a record, of the journal's too, by each of its ids."""
        for id in (record.about, *record.fields.get("also", ())):
            kept = self._by_id.get(id)
            if kept is None:
                kept = self._by_id[id] = deque(maxlen=self._each)
            kept.append(record)
            self._by_id.move_to_end(id)
        while len(self._by_id) > self._ids:
            self._by_id.popitem(last=False)
        for reason in record.reasons:
            if reason.code in COUNTED:
                self._recent[reason.code].append((record, reason))

    def of(self, id: str) -> list[Reason]:
        """The reasons of the decisions about an id, oldest first."""
        return [reason for record in self._of(id) for reason in record.reasons]

    def _of(self, id: str) -> list[Record]:
        """What memory keeps about an id, in order."""
        found = [*self._by_id.get(id, ()), *self._refusals.records(id)]
        return [_completed(record) for record in sorted(found, key=lambda record: record.seq)]

    def recent(self, code: str, since: float) -> list[tuple[list[str], Reason]]:
        """The decisions of one code that count for advice, after a time (seconds since the epoch), with their ids. One
        that stands in several records counts once."""
        found = {
            (record.about, reason.at, reason.text): ([record.about, *record.fields.get("also", ())], reason)
            for record, reason in self._recent[code]
            if record.at >= since
        }
        return list(found.values())

    def read(self, after: int = 0, about: str = "", level: str = "debug", limit: int = 100) -> list[Record]:
        """The journal's records (see `Journal.read`), and the decisions about that id that only memory keeps."""
        found = [_completed(record) for record in self._journal.read(after, about, level, limit)]
        if not about or level != "debug":
            return found
        known = {record.seq for record in found}
        mine = [cleaned(record) for record in self._of(about) if record.seq > after and record.seq not in known]
        both = sorted([*found, *mine], key=lambda record: record.seq)
        return both[-limit:] if after < 0 else both[:limit]


def _completed(record: Record) -> Record:
    """A record whose reasons have their time and say what would change them."""
    if all(reason.at and (reason.change or not change(reason.code)) for reason in record.reasons):
        return record
    reasons = [
        replace(reason, at=reason.at or record.at, change=reason.change or change(reason.code))
        for reason in record.reasons
    ]
    return replace(record, reasons=reasons)

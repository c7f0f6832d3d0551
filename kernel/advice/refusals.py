"""Requests that were turned away: under overload nothing is more frequent, so one costs a few entries in memory.

Of each the answer is kept as it was sent: bytes, which no garbage collection looks into.
The newest are kept by their request, each for itself. For everything else that they are about (the session, its owner,
the model) those of one cause are one decision, with their number and what is said of the newest: a flood does not push
out what else was decided. What `why` says of them is made when somebody asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from llmos.syscalls.errors import Busy, OverQuota, from_wire
from llmos.syscalls.types import Reason, Record
from llmos.syscalls.wire import unpack_body

from .outcome import ended

CAUSES = 256
"""So many causes are kept, those that were met last."""


@dataclass(frozen=True, slots=True)
class Refused:
    """One of them. `about` are the ids of the request, of its session, of its owner, and of what it named."""

    seq: int
    """Of the first of its reasons; they are numbered one after the other."""
    at: float
    call: str
    about: tuple[str, ...]
    answer: bytes
    """The body that was sent."""
    known: int
    """So many of its reasons were decided before."""
    seconds: float
    quota: tuple[str, int] | None
    """The limit that was reached, by its name, where that is why."""

    def reasons(self) -> list[Reason]:
        error = from_wire(unpack_body(self.answer))
        error.reasons = error.reasons[self.known :]
        return ended(self.call, error, self.seconds)


def cause(call: str, error: Busy | OverQuota) -> str:
    """What those have in common that count as one."""
    what = [error.what] if isinstance(error, OverQuota) else []
    return " ".join([call, type(error).__name__, *what, *(str(told.get("rule", "")) for told in error.reasons)])


@dataclass(slots=True)
class Alike:
    """Those of one cause."""

    newest: Refused
    since: float
    count: int = 0

    def reasons(self) -> list[Reason]:
        """Of the newest, with how many there are."""
        *before, last = self.newest.reasons()
        if self.count > 1:
            seconds = self.newest.at - self.since
            text = f"{last.text}; it is the newest of {self.count} refused for this within {seconds:.1f} s"
            last = replace(last, text=text, numbers={**last.numbers, "refused": self.count, "within_s": seconds})
        return [*before, last]


class Refusals:
    """Those of late."""

    def __init__(self, limit: int) -> None:
        """`limit` is how many requests are kept."""
        self._limit = limit
        self._by_request: OrderedDict[str, Refused] = OrderedDict()
        self._alike: OrderedDict[tuple[tuple[str, ...], str], Alike] = OrderedDict()

    def add(self, refused: Refused, cause: str) -> None:
        """Keep one, which counts with those that are about the same and have the same cause."""
        request, *others = refused.about
        self._by_request[request] = refused
        if len(self._by_request) > self._limit:
            self._by_request.popitem(last=False)
        key = (tuple(others), cause)
        alike = self._alike.get(key)
        if alike is None:
            alike = self._alike[key] = Alike(refused, refused.at)
            if len(self._alike) > CAUSES:
                self._alike.popitem(last=False)
        alike.newest = refused
        alike.count += 1
        self._alike.move_to_end(key)

    def records(self, id: str) -> list[Record]:
        """What was decided about an id, one record for each reason, in order."""
        one = self._by_request.get(id)
        if one is not None:
            return _records(one, one.reasons())
        found = [_records(alike.newest, alike.reasons()) for (about, _), alike in self._alike.items() if id in about]
        return sorted((record for records in found for record in records), key=lambda record: record.seq)

    def since(self, at: float) -> list[Refused]:
        """Those after a time in seconds since the epoch, of those kept."""
        return [refused for refused in self._by_request.values() if refused.at >= at]


def unit_of(reason: Reason) -> str:
    """The part of the kernel that a decision with this reason is of."""
    return reason.code.partition(".")[0]


def _records(refused: Refused, reasons: Sequence[Reason]) -> list[Record]:
    about, *also = refused.about
    return [
        Record(
            seq=refused.seq + place, at=refused.at, unit=unit_of(reason), level="debug", about=about,
            text=reason.text, fields={"also": also}, reasons=[reason],
        )
        for place, reason in enumerate(reasons)
    ]  # fmt: skip

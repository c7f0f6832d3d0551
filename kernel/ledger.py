"""The ledger of bytes: every byte of a device that is promised or used has a row, and no byte has two.

A row is admitted before anything is allocated, so that nothing admitted runs out of memory later. What the driver
measures is set beside the prediction, and the larger of the two counts. Devices that take from one memory are in a
pool, where each byte counts once. Pure: `now` is monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from llmos.syscalls.errors import NoDeviceMemory, NotFound
from llmos.syscalls.types import LedgerRow, Reason

HOST = "host"
"""The machine's own memory: a device beside the drivers', and the pool of those that take from it."""
FOREIGN = "foreign"
RESERVE = "reserve"
LEASE = "lease"


def size_text(count: int) -> str:
    """Bytes for people: `1.5 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def count_text(count: int, what: str) -> str:
    """So many of something for people: `1 request`, `2 requests`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


@dataclass(slots=True)
class _Row:
    """`admitted` is None for a row that only the driver knows of."""

    admitted: int | None
    allocator: int = 0
    driver: int = 0

    @property
    def ledger(self) -> int:
        return max(self.admitted or 0, self.allocator, self.driver)


@dataclass(slots=True)
class _Device:
    total: int
    reserve: int
    pool: str = ""
    rows: dict[tuple[str, str], _Row] = field(default_factory=dict)
    """By (owner, what)."""
    foreign: dict[str, int] = field(default_factory=dict)

    @property
    def used(self) -> int:
        return self.reserve + sum(self.foreign.values()) + sum(row.ledger for row in self.rows.values())


class Ledger:
    """The bytes of all devices."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}
        self._evictable: set[str] = set()
        self._expiry: dict[str, int] = {}

    def set_device(self, device: str, total: int, reserve: int = 0, pool: str = "") -> None:
        """Add a device, or correct its size; rows stay. `reserve` bytes are never given to anyone.

        Devices with the same `pool` take from one memory: that of the device which has the pool's name, or else as
        much as the largest of them has. What other programs use of it is told of the former, and of the others ignored.
        """
        place = self._devices.setdefault(device, _Device(0, 0))
        place.total, place.reserve, place.pool = max(total, 0), max(reserve, 0), pool
        if not self._tells_foreign(device):
            place.foreign = {}

    def drop_device(self, device: str) -> list[str]:
        """Forget a device with all its rows; the owners that lost rows, leases among them."""
        dropped = self._devices.pop(device, None)
        owners = _owners(dropped.rows) if dropped else []
        self._forget(owners)
        return owners

    def devices(self) -> list[str]:
        """The names of all devices."""
        return list(self._devices)

    def total(self, device: str) -> int:
        """All bytes of a device, the reserve included."""
        return self._device(device).total

    def admit(self, device: str, rows: Sequence[tuple[str, str, int]]) -> Reason:
        """Promise all rows, each (what, owner, bytes), or none. A row that exists grows by the bytes.

        Raises:
            NotFound: no such device.
            NoDeviceMemory: with the numbers and who holds the bytes.
        """
        _check(count for _, _, count in rows)
        place = self._device(device)
        needed, free = sum(count for _, _, count in rows), self.free(device)
        if needed > free:
            raise self.refusal(device, needed)
        for what, owner, count in rows:
            row = place.rows.setdefault((owner, what), _Row(0))
            row.admitted = (row.admitted or 0) + count
        return Reason(
            code="memory.admitted",
            text=f"it takes {size_text(needed)} of {device}, {size_text(free)} were free",
            numbers={"needed": needed, "free": free, "total": place.total},
        )

    def reserve(self, device: str, owner: str, what: str, bytes: int) -> Reason:
        """Promise one row, as `admit`."""
        return self.admit(device, [(what, owner, bytes)])

    def expire_at(self, owner: str, when: int) -> None:
        """Have `expire` end all rows of an owner at `when`, monotonic nanoseconds."""
        self._expiry[owner] = when

    def resize(self, device: str, owner: str, rows: Mapping[str, int]) -> Reason:
        """Set what an owner is promised on a device to exactly `rows` (what -> bytes), as when a model sleeps or wakes.

        What the driver measured before is forgotten until it measures again. On an error nothing changes.

        Raises:
            NotFound, NoDeviceMemory: as `admit`.
        """
        _check(rows.values())
        place = self._device(device)
        before = {key: row for key, row in place.rows.items() if key[0] == owner}
        for key in before:
            del place.rows[key]
        try:
            return self.admit(device, [(what, owner, count) for what, count in rows.items()])
        except NoDeviceMemory:
            place.rows.update(before)
            raise

    def lower(self, device: str, owner: str, rows: Mapping[str, int]) -> int:
        """Promise an owner no more than `rows` (what -> bytes) of each use that they name; how many bytes that gives
        back. What was measured counts on. Raises NotFound."""
        place = self._device(device)
        before = place.used
        for what, count in rows.items():
            row = place.rows.get((owner, what))
            if row is not None and row.admitted is not None:
                row.admitted = min(row.admitted, count)
        return before - place.used

    def move(self, device: str, row: tuple[str, str], owner: str, rows: Mapping[str, int]) -> None:
        """Promise `owner` exactly `rows` (what -> bytes), out of what the row (owner, what) of another is promised.

        Raises:
            NotFound: no such device.
            ValueError: less than that is promised for the row.
        """
        place = self._device(device)
        source, taken = place.rows.get(row), sum(rows.values())
        if source is None or (source.admitted or 0) < taken:
            raise ValueError(f"{row} has no {taken} bytes to give away")
        source.admitted = (source.admitted or 0) - taken
        for key in [key for key in place.rows if key[0] == owner]:
            del place.rows[key]
        place.rows.update({(owner, what): _Row(count) for what, count in rows.items()})

    def release(self, owner: str) -> int:
        """Give back all rows of an owner, on all devices; how many bytes they held."""
        freed = 0
        for place in self._devices.values():
            for key in [key for key in place.rows if key[0] == owner]:
                freed += place.rows.pop(key).ledger
        self._forget([owner])
        return freed

    def release_device(self, device: str, keep: Iterable[str] = (LEASE,)) -> list[str]:
        """A device lost its contents: drop its rows but those of the kinds in `keep`; the owners that lost rows."""
        place = self._device(device)
        kept = frozenset(keep)
        lost = [key for key in place.rows if key[1] not in kept]
        for key in lost:
            del place.rows[key]
        for key, row in list(place.rows.items()):
            place.rows[key] = _Row(row.admitted)
        owners = _owners(lost)
        self._forget(owner for owner in owners if not self._holds(owner))
        return owners

    def reconcile(self, device: str, rows: Iterable[LedgerRow], owners: Collection[str] | None = None) -> None:
        """Take over what the driver measured: all rows of the device, or with `owners` all rows of these.

        Rows it does not name count as promised only; rows nobody was promised are added. Foreign rows are replaced when
        any is named; negative figures count as 0.
        """
        place = self._device(device)
        measured: dict[tuple[str, str], _Row] = {}
        foreign: dict[str, int] = {}
        for row in rows:
            allocator, driver = max(row.allocator, 0), max(row.driver, 0)
            if row.what == FOREIGN:
                foreign[row.owner] = foreign.get(row.owner, 0) + max(row.ledger, allocator, driver)
            elif row.what != RESERVE and (owners is None or row.owner in owners):
                one = measured.setdefault((row.owner, row.what), _Row(None))
                one.allocator += allocator
                one.driver += driver
        for key, known in place.rows.items():
            if owners is not None and key[0] not in owners:
                measured[key] = known
            elif known.admitted is not None:
                measured.setdefault(key, _Row(None)).admitted = known.admitted
        place.rows = measured
        if foreign and self._tells_foreign(device):
            place.foreign = foreign

    def set_foreign(self, device: str, bytes: int) -> None:
        """Set what other programs use on a device, as one row."""
        place = self._device(device)
        place.foreign = {"": bytes} if bytes > 0 and self._tells_foreign(device) else {}

    def free(self, device: str) -> int:
        """Bytes that can be promised now, of the device and of its pool; never negative."""
        return max(self._left(device), 0)

    def excess(self, device: str) -> int:
        """Bytes by which measured and foreign use exceed the device or its pool: 0 unless something grew beyond its
        promise."""
        return max(-self._left(device), 0)

    def pool(self, device: str) -> list[str]:
        """The devices that take from the same memory, this one among them."""
        name = self._device(device).pool
        return [each for each, place in self._devices.items() if each == device or (name and place.pool == name)]

    def rows(self, device: str | None = None) -> list[LedgerRow]:
        """The rows of one device, or of all; foreign programs and the reserve included. Their `ledger` adds up to
        total - free + excess, for a pool those of all its devices to that of the pool."""
        names = self._devices if device is None else [device]
        return [row for name in names for row in _rows(name, self._device(name))]

    def held(self, owner: str) -> int:
        """Bytes that an owner holds, on all devices."""
        return sum(row.ledger for place in self._devices.values() for key, row in place.rows.items() if key[0] == owner)

    def refusal(self, device: str, needed: int) -> NoDeviceMemory:
        """The error that says why so many bytes are not given: the numbers, and who holds them."""
        free, evictable, place = self.free(device), self.evictable(device), self._device(device)
        rows = [row for each in self._filled(device) for row in self.rows(each)]
        largest = sorted(rows, key=lambda row: -row.ledger)[:4]
        by_whom = ", ".join(f"{_holder(row)}: {size_text(row.ledger)}" for row in largest)
        numbers = {"needed": needed, "free": free, "evictable": evictable, "total": place.total}
        text = (
            f"{size_text(needed)} are needed on {device}, {size_text(free)} of {size_text(place.total)} are free and "
            f"{size_text(evictable)} could be evicted (held by {by_whom or 'nobody'})"
        )
        reason = Reason(code="memory.refused", text=text, numbers=dict(numbers))
        return NoDeviceMemory(
            text, needed=needed, free=free, evictable=evictable, by_whom=by_whom, reasons=[msgspec.to_builtins(reason)]
        )

    def set_evictable(self, owner: str, evictable: bool) -> None:
        """Say whether the rows of an owner could be freed to make room."""
        if evictable:
            self._evictable.add(owner)
        else:
            self._evictable.discard(owner)

    def evictable(self, device: str) -> int:
        """By how much more of a device could be promised, if all that eviction could free of it and its pool left."""
        place = self._device(device)
        members = [self._devices[each] for each in self.pool(device)]
        own = place.total - place.used + self._leaving(place)
        shared = self._left_in_pool(device) + sum(self._leaving(each) for each in members)
        return max(min(own, shared), 0) - self.free(device)

    def expire(self, now: int) -> list[str]:
        """Release the owners whose time has passed."""
        over = [owner for owner, at in self._expiry.items() if at <= now]
        for owner in over:
            self.release(owner)
        return over

    def next_expiry(self) -> int | None:
        """When `expire` has something to do next."""
        return min(self._expiry.values(), default=None)

    def _device(self, device: str) -> _Device:
        try:
            return self._devices[device]
        except KeyError:
            known = ", ".join(self._devices) or "none"
            raise NotFound(f"the ledger has no device {device!r}; it has {known}") from None

    def _filled(self, device: str) -> list[str]:
        """The devices whose rows leave it no more room: it alone where it has less left than its pool."""
        place = self._device(device)
        return [device] if place.total - place.used < self._left_in_pool(device) else self.pool(device)

    def _left(self, device: str) -> int:
        """What is left of a device and of its pool; negative by what is too much."""
        place = self._device(device)
        return min(place.total - place.used, self._left_in_pool(device))

    def _left_in_pool(self, device: str) -> int:
        """What is left of the memory that a device shares; of one that shares none, its own."""
        place = self._device(device)
        members = [self._devices[each] for each in self.pool(device)]
        named = self._devices.get(place.pool)
        total = named.total if named is not None else max(each.total for each in members)
        return total - sum(each.used for each in members)

    def _leaving(self, place: _Device) -> int:
        return sum(row.ledger for key, row in place.rows.items() if key[0] in self._evictable)

    def _tells_foreign(self, device: str) -> bool:
        return self._device(device).pool in ("", device)

    def _holds(self, owner: str) -> bool:
        return any(key[0] == owner for place in self._devices.values() for key in place.rows)

    def _forget(self, owners: Iterable[str]) -> None:
        for owner in owners:
            self._evictable.discard(owner)
            self._expiry.pop(owner, None)


def _check(counts: Iterable[int]) -> None:
    for count in counts:
        if count < 0:
            raise ValueError(f"a ledger row of {count} bytes")


def _owners(keys: Iterable[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(owner for owner, _ in keys))


def _holder(row: LedgerRow) -> str:
    """Who holds a row, for people."""
    if row.what == FOREIGN:
        return f"{row.owner or 'other programs'} on {row.device}"
    return f"{row.what} of {row.owner or row.device}"


def _rows(name: str, place: _Device) -> list[LedgerRow]:
    rows = [
        LedgerRow(
            device=name, what=what, owner=owner, predicted=row.admitted or 0, ledger=row.ledger,
            allocator=row.allocator, driver=row.driver,
        )
        for (owner, what), row in place.rows.items()
    ]  # fmt: skip
    rows += [
        LedgerRow(device=name, what=FOREIGN, owner=owner, ledger=count, driver=count)
        for owner, count in place.foreign.items()
    ]
    if place.reserve:
        rows.append(LedgerRow(device=name, what=RESERVE, owner="", predicted=place.reserve, ledger=place.reserve))
    return rows

"""The handle tables of all sessions: who holds which object with which rights, and who got it from whom.

A handle is a number that means something in one session only. Derivation is a tree, as in seL4: revoking a handle ends
all that was derived from it, in any session. Rights only narrow on the way down; asking for more is an error, as in
Zircon, never a silent downgrade. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from llmos.syscalls.errors import BadHandle, Denied, NotFound, WrongKind
from llmos.syscalls.types import Handle, Kind, Right, Rights

Key = tuple[str, Handle]
"""(session, handle): names one entry of the whole system."""

_DUP = (Right.DUP,)
_GRANT = (Right.GRANT,)


@dataclass(frozen=True, slots=True)
class Entry:
    """One open handle. `parent` is the handle it was derived from, None for one that the kernel gave.

    One that does not hold, such as a listing gives, does not keep its object from ending.
    """

    handle: Handle
    session: str
    kind: Kind
    object: str
    rights: Rights
    parent: Key | None = None
    holds: bool = True

    @property
    def key(self) -> Key:
        return self.session, self.handle


class HandleTable:
    """The open handles of every session. Session ids must never be used twice; then no handle ever is."""

    def __init__(self) -> None:
        self._sessions: dict[str, dict[int, Entry]] = {}
        self._last: dict[str, int] = {}
        self._children: dict[Key, dict[Key, None]] = {}
        self._holders: dict[str, dict[Key, None]] = {}

    def create(
        self,
        session: str,
        kind: Kind,
        object: str,
        rights: Iterable[Right],
        parent: Entry | None = None,
        *,
        holds: bool = True,
    ) -> Handle:
        """Give `session` a handle by the kernel's own authority; it counts as derived from `parent`.

        Raises:
            BadHandle: the parent is not open.
        """
        if parent is not None:
            parent = self.get(parent.session, parent.handle)
        handle = Handle(self._last.get(session, 0) + 1)
        self._last[session] = handle
        entry = Entry(handle, session, kind, object, frozenset(rights), parent.key if parent else None, holds)
        self._sessions.setdefault(session, {})[handle] = entry
        self._holders.setdefault(object, {})[entry.key] = None
        if parent is not None:
            self._children.setdefault(parent.key, {})[entry.key] = None
        return handle

    def get(
        self,
        session: str,
        handle: Handle | int,
        kind: Kind | None = None,
        rights: Iterable[Right] = (),
        what: str = "handle",
    ) -> Entry:
        """The entry behind a handle, checked; `what` names the argument in error texts.

        Raises:
            BadHandle: not open in this session.
            WrongKind: it names an object of another kind than `kind`.
            Denied: it lacks one of `rights`; `missing` lists them.
        """
        table = self._sessions.get(session)
        entry = None if table is None else table.get(handle)
        if entry is None:
            raise BadHandle(f"{what}={handle} is not open in this session")
        if kind is not None and entry.kind is not kind:
            raise WrongKind(f"{what}={handle} is a {entry.kind}, not a {kind}", want=kind.value, got=entry.kind.value)
        if not entry.rights.issuperset(rights):
            raise _denied(entry, rights, what)
        return entry

    def dup(self, session: str, handle: Handle | int, rights: Iterable[Right]) -> Entry:
        """A second handle of the same session to the same object, with equal or fewer rights. Needs DUP.

        Raises:
            BadHandle, Denied: not open; DUP or one of the wanted rights is not held.
        """
        return self._derive(self.get(session, handle, rights=_DUP), session, rights)

    def grant(self, session: str, handle: Handle | int, to: str, rights: Iterable[Right]) -> Entry:
        """A handle of session `to` to the same object, with equal or fewer rights. Needs GRANT.

        Raises:
            BadHandle, Denied: not open; GRANT or one of the wanted rights is not held.
            NotFound: there is no session `to`.
        """
        entry = self.get(session, handle, rights=_GRANT)
        if to not in self._sessions:
            raise NotFound(f"there is no session {to!r}; list_objects with kind session shows those that are open")
        return self._derive(entry, to, rights)

    def revoke(self, session: str, handle: Handle | int) -> list[Entry]:
        """Close everything derived from a handle, in any session, but not the handle itself. Needs GRANT.

        Raises:
            BadHandle, Denied: not open; GRANT is not held.
        """
        closed: list[Entry] = []
        pending = list(self._children.get(self.get(session, handle, rights=_GRANT).key, ()))
        while pending:
            key = pending.pop()
            pending.extend(self._children.get(key, ()))
            closed.append(self._sessions[key[0]][key[1]])
        for entry in closed:
            self._remove(entry)
        return closed

    def close(self, session: str, handle: Handle | int) -> list[Entry]:
        """Close one handle. What was derived from it stays open and now counts as derived from its parent.

        Raises:
            BadHandle: not open, or closed before.
        """
        entry = self.get(session, handle)
        self._adopt(entry)
        self._remove(entry)
        return [entry]

    def close_session(self, session: str) -> list[Entry]:
        """Close all handles of a session and forget it. Handles it granted to others stay, as with `close`."""
        closed = self.of_session(session)
        for entry in closed:
            self.close(session, entry.handle)
        self._sessions.pop(session, None)
        self._last.pop(session, None)
        return closed

    def close_object(self, object: str) -> list[Entry]:
        """Close every handle to an object that has ended."""
        closed = self.holders(object)
        for entry in closed:
            self.close(entry.session, entry.handle)
        return closed

    def holders(self, object: str) -> list[Entry]:
        """All open handles to an object, in the order they were made."""
        return [self._sessions[session][handle] for session, handle in self._holders.get(object, ())]

    def held(self, object: str) -> bool:
        """Whether an open handle keeps an object from ending."""
        return any(entry.holds for entry in self.holders(object))

    def of_session(self, session: str) -> list[Entry]:
        """All open handles of a session, in the order they were made."""
        return list(self._sessions.get(session, {}).values())

    def count(self, session: str) -> int:
        """How many handles a session has open."""
        return len(self._sessions.get(session, ()))

    def _derive(self, source: Entry, to: str, rights: Iterable[Right]) -> Entry:
        wanted = frozenset(rights)
        if not source.rights.issuperset(wanted):
            raise _denied(source, wanted, "handle")
        handle = self.create(to, source.kind, source.object, wanted, source)
        return self._sessions[to][handle]

    def _adopt(self, entry: Entry) -> None:
        """Hand the children of `entry` to its parent, so that an ancestor's revoke still reaches them."""
        children = self._children.pop(entry.key, {})
        for session, handle in children:
            child = self._sessions[session][handle]
            self._sessions[session][handle] = replace(child, parent=entry.parent)
        if entry.parent is not None:
            self._children[entry.parent].update(children)

    def _remove(self, entry: Entry) -> None:
        del self._sessions[entry.session][entry.handle]
        self._children.pop(entry.key, None)
        siblings = self._children.get(entry.parent) if entry.parent else None
        if siblings is not None:
            siblings.pop(entry.key, None)
        holders = self._holders[entry.object]
        del holders[entry.key]
        if not holders:
            del self._holders[entry.object]


def _denied(entry: Entry, wanted: Iterable[Right], what: str) -> Denied:
    missing = ", ".join(sorted(right.value for right in frozenset(wanted) - entry.rights))
    held = ", ".join(sorted(right.value for right in entry.rights)) or "none"
    return Denied(f"{what}={entry.handle} ({entry.kind}) lacks the right {missing}; it has {held}", missing=missing)

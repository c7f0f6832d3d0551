"""Opens, resumes and ends sessions; gives them what policy grants and watches the processes behind them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from llmos.syscalls.calls import Hello
from llmos.syscalls.errors import Denied, LlmosError, NoResources, NotSupported, OverQuota
from llmos.syscalls.types import ALL_RIGHTS, Grant, Handle, Kind, Limits, LimitsOut, Right, Rights, Welcome
from llmos.syscalls.wire import FEATURES, LIMITS, PROTOCOL, MessageKind, Reply, error_frames, pack

from .handles import Entry
from .namespace import MountPoint, MountTable
from .objects import (
    SHARED_KINDS, BufferObject, ContextObject, FileObject, KernelObject, LeaseObject, MountObject, SessionObject,
)  # fmt: skip
from .session import Peer, Session, new_token

if TYPE_CHECKING:
    from .core import Kernel


PROBE_NS = 10_000_000_000


@dataclass
class Process:
    """A process with sessions: its end is seen through a pidfd, which cannot be confused by a reused pid."""

    fd: int
    sessions: dict[str, Session] = field(default_factory=dict)


class SessionService:
    """All sessions."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.by_id: dict[str, Session] = {}
        self._processes: dict[int, Process] = {}
        self._probed = 0

    # ---- opening

    def hello(self, route: bytes, peer: Peer, number: int, call: Hello) -> None:
        """Answer `hello`: the one call without a session."""
        try:
            welcome = self._open(route, peer, call)
        except LlmosError as error:
            self._kernel.metrics_error("hello", type(error).__name__)
            self._kernel.send_client(route, error_frames(number, error))
            return
        self._kernel.send_client(route, pack(MessageKind.REPLY, number, "", Reply(value=welcome)))

    def _open(self, route: bytes, peer: Peer, call: Hello) -> Welcome:
        kernel = self._kernel
        if call.protocol < PROTOCOL:
            raise NotSupported(
                f"protocol {call.protocol} is too old, this kernel speaks {PROTOCOL}: update the client",
                why=f"the kernel speaks protocol {PROTOCOL}",
            )
        if call.resume is not None:
            return self._resume(route, peer, call.resume)
        if kernel.tasks.started(peer.pid):
            raise Denied(
                "a program that the kernel started has the session it was given; take it up with hello(resume=...) and "
                "the token in LLMOS_SESSION",
                missing="session",
            )
        if kernel.draining:
            raise NoResources("the kernel is stopping and opens no new sessions", what="sessions", limit=0)
        policy = kernel.config.policy(peer.uid, call.tenant)
        if policy is None:
            raise Denied(f"user {peer.uid} is not in this kernel's policy", missing="policy")
        mine = sum(1 for s in self.by_id.values() if s.peer.uid == peer.uid)
        self._check_room(mine, policy.limits.sessions)
        session_id = kernel.new_id("s")
        mounts = MountTable(
            MountPoint(path=path, filesystem=m.filesystem, source=m.source, mode=m.mode, id=kernel.new_id("fs"))
            for path, m in policy.mounts.items()
        )
        token = new_token()
        session = self._create(session_id, token, peer, call.program, call.tenant, mounts, policy.limits)
        self._connect(session, route)
        try:
            self._first_handles(session)
        except OverQuota as error:
            self.close(session, str(error))
            raise
        return self._welcome(session, token)

    def _first_handles(self, session: Session) -> None:
        """What a session starts with: the system, devices and mounts."""
        for found in list(self._kernel.objects.values()):
            if found.kind in (Kind.SYSTEM, Kind.DEVICE):
                self.root(session, found)
        for point in session.mounts.points():
            mount = MountObject(
                id=point.id, kind=Kind.MOUNT, name=point.path, owner=session.owner, point=point, session=session
            )
            rights = self.rights_of_maker(session, mount)
            session.roots[mount.id] = self._kernel.add_object(mount, session, rights)

    def _check_room(self, mine: int, limit: int) -> None:
        total = self._kernel.config.limits.sessions
        if total and len(self.by_id) >= total:
            raise NoResources(f"{total} sessions are open, which is the limit", what="sessions", limit=total)
        if limit and mine >= limit:
            raise OverQuota(f"this user has {limit} sessions open, which is the limit", what="sessions", limit=limit)

    def _create(
        self,
        session_id: str,
        token: str,
        peer: Peer,
        program: str,
        tenant: str,
        mounts: MountTable,
        limits: Limits,
        *,
        ambient: bool = True,
        task: str = "",
    ) -> Session:
        kernel = self._kernel
        session = Session(
            session_id, token, peer, program, tenant, mounts, limits, kernel.send_client, kernel.dirty,
            kernel.wall(), ambient=ambient, task=task,
        )  # fmt: skip
        self._watch(peer.pid, session)
        self.by_id[session.id] = session
        mine = SessionObject(id=session.id, kind=Kind.SESSION, name=program, owner=session.owner, session=session)
        session.handle = kernel.add_object(mine, session, ALL_RIGHTS)
        session.roots[mine.id] = session.handle
        kernel.instruments.sessions.set(len(self.by_id))
        text = f"{program!r} (pid {peer.pid}, uid {peer.uid}) opened {session.id}"
        kernel.log("session", text, session.id, level="debug")
        kernel.emit("session", session.id, state="open", program=program)
        return session

    def prepare(
        self, pid: int, program: str, parent: Session, mounts: MountTable, limits: Limits, task: str, token: str
    ) -> Session:
        """A session for a program just started: it has no authority but what is granted to it next."""
        peer = Peer(self._kernel.uid, os.getgid(), pid)
        return self._create(
            self._kernel.new_id("s"), token, peer, program, parent.tenant, mounts, limits, ambient=False, task=task
        )

    def _resume(self, route: bytes, peer: Peer, token: str) -> Welcome:
        process = self._processes.get(peer.pid)
        for session in process.sessions.values() if process is not None else ():
            if session.owns_token(token) and session.peer == peer:
                self._disconnect(session)
                self._connect(session, route)
                renewed = new_token()
                session.renew_token(renewed)
                return self._welcome(session, renewed)
        raise Denied("no session of this process can be resumed with that token: open a new one", missing="session")

    def _connect(self, session: Session, route: bytes) -> None:
        before = self._kernel.routes.get(route)
        if before is not None and before is not session:
            self.close(before, "its connection opened another session")
        self._kernel.routes[route] = session
        session.route = route

    def _disconnect(self, session: Session) -> None:
        if session.route is not None:
            self._kernel.routes.pop(session.route, None)
            session.route = None

    def _welcome(self, session: Session, token: str) -> Welcome:
        kernel = self._kernel
        grants = []
        for entry in kernel.handles.of_session(session.id):
            found = kernel.objects[entry.object]
            grants.append(Grant(handle=entry.handle, kind=entry.kind, name=found.name, rights=entry.rights))
        return Welcome(
            session=session.id,
            token=token,
            protocol=PROTOCOL,
            features=list(FEATURES),
            limits=LimitsOut(**msgspec.structs.asdict(session.limits)),
            grants=grants,
            wire=LIMITS,
            handle=session.handle,
            system=session.system,
        )

    # ---- handles by policy

    def rights_for(self, session: Session, found: KernelObject) -> Rights:
        """What policy lets this session do with an object; empty when it may not even know of it."""
        policy = self._kernel.config.policy(session.peer.uid, session.tenant)
        if policy is None or not session.ambient:
            return frozenset()
        by_policy = policy.rights(found.kind, found.name)
        owner = found.owner
        if owner in ("", session.owner) or (not session.tenant and owner.partition("/")[0] == session.owner):
            return by_policy
        if session.peer.uid == self._kernel.uid and not session.tenant:
            return by_policy
        if found.kind in SHARED_KINDS:
            return by_policy - {Right.MANAGE, Right.WRITE}
        return frozenset()

    def root(self, session: Session, found: KernelObject) -> Handle | None:
        """The session's handle to an object by policy: made once, None when it has no rights to it."""
        known = session.roots.get(found.id)
        if known is not None:
            return known
        rights = self.rights_for(session, found)
        if not rights:
            return None
        self.check_handles(session)
        handle = self._kernel.handles.create(session.id, found.kind, found.id, rights, holds=False)
        session.roots[found.id] = handle
        if found.kind is Kind.SYSTEM:
            session.system = handle
        return handle

    def give(self, session: Session, found: KernelObject) -> Handle:
        """The session's handle to an object that it made or joined, whatever policy says of others."""
        handle = self.root(session, found)
        if handle is None:
            self.check_handles(session)
            handle = self._kernel.handles.create(session.id, found.kind, found.id, ALL_RIGHTS)
            session.roots[found.id] = handle
        return handle

    def may_end(self, session: Session, of: Session) -> bool:
        """Whether a session may cancel another's requests: only its own user's, and a tenant only its own."""
        return of.owner == session.owner or (not session.tenant and of.peer.uid == session.peer.uid)

    def rights_of_maker(self, session: Session, found: KernelObject) -> Rights:
        """What a session may do with an object it makes: what policy says, everything for a confined program."""
        return self.rights_for(session, found) if session.ambient else ALL_RIGHTS

    def forget_root(self, entry: Entry) -> None:
        """A handle was closed: the next listing makes a new one."""
        session = self.by_id.get(entry.session)
        if session is not None and session.roots.get(entry.object) == entry.handle:
            del session.roots[entry.object]

    def check_handles(self, session: Session) -> None:
        limits = [n for n in (session.limits.handles, self._kernel.config.limits.handles) if n]
        limit = min(limits, default=0)
        if limit and self._kernel.handles.count(session.id) >= limit:
            raise OverQuota(
                f"this session has {limit} handles open, which is its limit; close some", what="handles", limit=limit
            )

    # ---- policy that changes

    def with_limits_of_policy(self) -> list[Session]:
        """Sessions with the limits that policy has for them, which nobody has lowered."""
        return [session for session in self.by_id.values() if self._limits(session) == session.limits]

    def take_limits_of_policy(self, sessions: Iterable[Session]) -> None:
        """Give sessions the limits that policy has for them now; one of a user that is gone from it keeps its own."""
        for session in sessions:
            session.limits = self._limits(session) or session.limits

    def _limits(self, session: Session) -> Limits | None:
        policy = self._kernel.config.policy(session.peer.uid, session.tenant)
        return policy.limits if policy is not None else None

    # ---- ending

    def close(self, session: Session, why: str) -> None:
        """End a session: its requests are cancelled, its handles closed, what only it held is freed."""
        if self.by_id.pop(session.id, None) is None:
            return
        kernel = self._kernel
        kernel.log("session", f"{session.id} ({session.program!r}) has ended: {why}", session.id, level="debug")
        self._disconnect(session)
        for request in {r.id: r for r in session.requests.values()}.values():
            kernel.dispatcher.cancel(request)
        closed = kernel.handles.close_session(session.id)
        session.roots.clear()
        for entry in closed:
            self.release(entry)
        kernel.remove_object(kernel.objects[session.id])
        kernel.holdings.forget_buffers(session)
        kernel.quotas.changed(session.id)
        self._unwatch(session)
        kernel.instruments.sessions.set(len(self.by_id))
        kernel.emit("session", session.id, state="closed", program=session.program)

    def release(self, entry: Entry) -> None:
        """A handle has been closed: when it was the last of its object, and nothing else needs it, the object ends."""
        found = self._kernel.objects.get(entry.object)
        if found is not None and not self._kernel.handles.held(entry.object):
            self.end_object(found)

    def end_object(self, found: KernelObject) -> None:
        """End an object that lives only as long as somebody holds it; others stay."""
        kernel = self._kernel
        if isinstance(found, LeaseObject):
            kernel.holdings.end_lease(found, "its handle was closed")
        elif isinstance(found, BufferObject):
            kernel.holdings.drop_buffer(found)
        elif isinstance(found, FileObject):
            kernel.remove_object(found)
            kernel.files.abandon(found)
        elif isinstance(found, MountObject):
            kernel.remove_object(found)
            found.session.mounts.unmount(found.point.path)
        elif isinstance(found, ContextObject):
            kernel.holdings.drop_context(found)

    def lost_route(self, route: bytes) -> None:
        """A connection is gone while its process lives: the session waits a while for the process to come back."""
        session = self._kernel.routes.pop(route, None)
        if session is None:
            return
        session.route = None
        session.losses += 1
        losses, seconds = session.losses, self._kernel.config.limits.resume_s
        self._kernel.runner.after(seconds, lambda: self._not_resumed(session, losses, seconds))

    def _not_resumed(self, session: Session, losses: int, seconds: float) -> None:
        if session.route is None and session.losses == losses and not session.task:
            self.close(session, f"its connection was lost and not resumed within {seconds:g} s")

    # ---- processes

    def _watch(self, pid: int, session: Session) -> None:
        process = self._processes.get(pid)
        if process is None:
            try:
                process = Process(os.pidfd_open(pid))
            except OSError as error:
                if error.errno == errno.EMFILE:
                    raise NoResources("the kernel has no file descriptor left", what="descriptors") from None
                raise Denied(f"process {pid} has ended or cannot be watched: {error}", missing="process") from None
            self._processes[pid] = process
            self._kernel.watcher.watch(process.fd, lambda: self._died(pid))
        process.sessions[session.id] = session

    def _unwatch(self, session: Session) -> None:
        process = self._processes[session.peer.pid]
        del process.sessions[session.id]
        if not process.sessions:
            del self._processes[session.peer.pid]
            self._kernel.watcher.unwatch(process.fd)
            os.close(process.fd)

    def _died(self, pid: int) -> None:
        for session in list(self._processes[pid].sessions.values()):
            self.close(session, f"process {pid} has ended")

    def probe(self, now: int) -> None:
        """Send a beat to every idle connection now and then: sending is how one that is gone is noticed."""
        if now - self._probed >= PROBE_NS:
            self._probed = now
            for session in list(self.by_id.values()):
                session.send(pack(MessageKind.BEAT, 0))

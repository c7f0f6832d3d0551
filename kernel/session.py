"""A session: one program, its identity as the operating system gave it, its namespace, its requests in flight."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llmos.syscalls.errors import TooLarge
from llmos.syscalls.types import Handle, Limits
from llmos.syscalls.wire import MessageKind, pack, pack_header

from .namespace import MountTable
from .requests import Request

_REMEMBERED = 256
_REMEMBERED_BYTES = 4 << 20


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a connection."""

    uid: int
    gid: int
    pid: int

    @classmethod
    def parse(cls, address: str) -> Peer:
        """From libzmq's `Peer-Address` on ipc, `localhost:UID:GID:PID`, filled from SO_PEERCRED.

        Raises:
            ValueError: another form, as on tcp.
        """
        uid, gid, pid = address.rsplit(":", 3)[1:]
        return cls(int(uid), int(gid), int(pid))


def new_token() -> str:
    return secrets.token_urlsafe(24)


def token_hash(token: str) -> bytes:
    """What the kernel keeps of a token."""
    return hashlib.sha256(token.encode()).digest()


class Session:
    """One session. `ambient` sessions may reach objects by policy; a spawned program has only what it was given."""

    def __init__(
        self,
        session_id: str,
        token: str,
        peer: Peer,
        program: str,
        tenant: str,
        mounts: MountTable,
        limits: Limits,
        send: Callable[[bytes, Sequence[bytes]], bool],
        dirty: list[Session],
        since: float,
        *,
        ambient: bool = True,
        task: str = "",
    ) -> None:
        self.id = session_id
        self.peer = peer
        self.program = program
        self.tenant = tenant
        self.owner = f"{peer.uid}/{tenant}" if tenant else str(peer.uid)
        self.mounts = mounts
        self.limits = limits
        self.since = since
        self.ambient = ambient
        self.task = task
        self.route: bytes | None = None
        self.losses = 0
        """How often its connection was lost."""
        self.requests: dict[int, Request] = {}
        self.roots: dict[str, Handle] = {}
        """The handle this session has by policy, by object: given once, so that listing leaks none."""
        self.handle = Handle(0)
        self.system = Handle(0)
        self.buffer_bytes = 0
        self.lease_bytes = 0
        self._token = token_hash(token)
        self._send = send
        self._dirty = dirty
        self._chunks: list[tuple[int, Any]] = []
        self._keys: dict[str, Request] = {}
        self._answers: OrderedDict[str, tuple[MessageKind, bytes]] = OrderedDict()
        self._answer_bytes = 0

    def owns_token(self, token: str) -> bool:
        return hmac.compare_digest(self._token, token_hash(token))

    def renew_token(self, token: str) -> None:
        self._token = token_hash(token)

    # ---- requests and their answers

    def begin(self, number: int, request: Request) -> None:
        self.requests[number] = request
        if request.key:
            self._keys[request.key] = request

    def repeat(self, number: int, key: str) -> bool:
        """Serve a call that repeats a key: join the request in flight, or send the stored answer again."""
        running = self._keys.get(key)
        if running is not None:
            running.receivers.append(number)
            self.requests[number] = running
            return True
        stored = self._answers.get(key)
        if stored is None:
            return False
        self.terminal(number, *stored)
        return True

    def finished(self, request: Request, kind: MessageKind, frame: bytes) -> None:
        """Forget a request; keep its answer when it has a key."""
        for number in request.receivers:
            self.requests.pop(number, None)
        if request.key:
            self._keys.pop(request.key, None)
            self._answers[request.key] = (kind, frame)
            self._answer_bytes += len(frame)
            while len(self._answers) > _REMEMBERED or self._answer_bytes > _REMEMBERED_BYTES:
                _, (_, old) = self._answers.popitem(last=False)
                self._answer_bytes -= len(old)

    # ---- sending

    def send(self, frames: Sequence[bytes]) -> None:
        """Send to the program, if it is connected; a lost connection loses only what it can ask for again."""
        if self.route is not None and not self._send(self.route, frames):
            self.route = None

    def terminal(self, number: int, kind: MessageKind, frame: bytes) -> None:
        self.flush()
        self.send([pack_header(kind, number), frame])

    def chunk(self, number: int, item: Any) -> None:
        """Queue a stream item; all items of one loop turn leave in one frame."""
        if not self._chunks:
            self._dirty.append(self)
        self._chunks.append((number, item))

    def flush(self) -> None:
        if self._chunks:
            items = msgspec.to_builtins(self._chunks, builtin_types=(bytes,))
            self._chunks = []
            self._send_items(items)

    def _send_items(self, items: list[Any]) -> None:
        """One frame for all, or as few as the size of a message allows."""
        number = items[0][0] if len({n for n, _ in items}) == 1 else 0
        try:
            frames = pack(MessageKind.CHUNK, number, "", {"items": items})
        except TooLarge as error:
            if len(items) > 1:
                middle = len(items) // 2
                self._send_items(items[:middle])
                self._send_items(items[middle:])
            elif number in self.requests:
                self.requests[number].interrupt(error)
            return
        self.send(frames)

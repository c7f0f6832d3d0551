"""Opening a session on a connection, and again after a connection broke; shared by the sync and the async client."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from llmos.syscalls import wire
from llmos.syscalls.calls import Hello
from llmos.syscalls.errors import BadArgument, Denied, Expired, LlmosError, NotFound
from llmos.syscalls.types import Welcome

from .link import Link, NoKernel
from .protocol import Frames, Protocol

PATIENCE = 5.0
"""Seconds to wait for a kernel that is restarting."""

_RETRY = 0.05
_ANSWER_NS = 2_000_000_000
"""A kernel that is there gets this much longer to answer hello."""
_NO_SUCH_SESSION = (NotFound, Denied, BadArgument, Expired)


@dataclass(frozen=True)
class Caller:
    """Who connects, and how long it waits for a kernel."""

    program: str
    tenant: str = ""
    patience: float = PATIENCE
    last_words: Callable[[], str] | None = None
    """Asked for how the kernel ended when there will be no other; takes a while. None where nobody knows."""


def join(link: Link, core: Protocol, caller: Caller, patience: float) -> Generator[float, None, Welcome]:
    """Connect and say hello. Yields how many seconds to wait at most for the link before going on.

    Raises:
        NoKernel: nobody answered within `patience` seconds.
        LlmosError: the kernel refused.
    """
    until = core.clock() + int(patience * 1e9)
    token = core.welcome.token if core.welcome is not None else None
    while True:
        try:
            link.open()
            return (yield from _hello(link, core, caller, token, until))
        except NoKernel:
            if core.clock() >= until:
                link.shut()
                raise
            yield _RETRY
        except _NO_SUCH_SESSION:
            if token is None:
                link.shut()
                raise
            token = None


def _hello(
    link: Link, core: Protocol, caller: Caller, token: str | None, until: int
) -> Generator[float, None, Welcome]:
    request = Hello(protocol=wire.PROTOCOL, program=caller.program, tenant=caller.tenant, resume=token)
    pending, frames = core.start(request)
    link.send(frames)
    try:
        while True:
            broken = link.broken()
            while link.read():
                core.receive(link.inbox.popleft(), link.inbox.popleft())
            if pending.done:
                welcome: Welcome = pending.result()
                return welcome
            if broken:
                raise NoKernel(link.address, "it closed the connection")
            if core.clock() >= until + _ANSWER_NS:
                raise NoKernel(link.address, "it is there but does not answer")
            yield _RETRY
    finally:
        core.pending.pop(pending.id, None)


def settle(core: Protocol, welcome: Welcome) -> list[Frames]:
    """What a new connection means for the requests in flight: frames to send again.

    When the kernel knew the session, it goes on; otherwise its handles are gone, and that is said.
    """
    before = core.welcome
    if before is not None and welcome.session == before.session:
        core.renewed(welcome)
        return core.resumed()
    if before is not None:
        core.lost(
            f"the kernel at this address is a new one: session {before.session} and all its handles are gone; "
            "open a new session (renew) and load or open again what you need"
        )
        core.welcome = welcome
        return []
    core.renewed(welcome)
    return []


def give_up(core: Protocol, error: NoKernel | LlmosError, last_words: str = "") -> None:
    """The connection broke and no new one could be had; `last_words` say more than the error does."""
    broke = "the connection to the kernel broke"
    if last_words:
        core.lost(f"{broke}: {last_words}")
        return
    core.lost(f"{broke}, and there is no new one: {error}")
    core.ended = (
        f"{broke} and this session ended with it ({error}). When a kernel runs again, the next call of the system "
        "object opens a new session; load or open again what you need"
    )

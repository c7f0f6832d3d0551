"""Opening sessions: patience, refusals, and what a new session means for the requests in flight."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.syscalls.errors import Denied, PeerGone
from llmos.userland.join import Caller, give_up, join, settle
from llmos.userland.link import Link, NoKernel
from llmos.userland.protocol import Protocol


class Clock:
    """Time that passes only when somebody waits."""

    now = 0

    def __call__(self) -> int:
        return self.now


def drive(joining: Any, link: Link, clock: Clock) -> Any:
    """Run a join; its waits move the clock."""
    waits = 0
    while True:
        try:
            seconds = next(joining)
        except StopIteration as stop:
            return stop.value, waits
        waits += 1
        clock.now += int(seconds * 1e9)
        if link.is_open:
            link.wait(1000)


def test_a_missing_kernel_is_tried_until_the_patience_is_over(folder: Any) -> None:
    clock, link = Clock(), Link(f"ipc://{folder}/none")
    core = Protocol(clock)
    with pytest.raises(NoKernel):
        drive(join(link, core, Caller("x"), 2.0), link, clock)
    assert clock.now == pytest.approx(2e9, abs=1e8)
    with pytest.raises(NoKernel):
        next(join(link, core, Caller("x"), 0.0))
    link.close()


def test_a_kernel_that_is_there_but_silent_is_given_up(fake: Any) -> None:
    fake.on("hello", lambda request: None)
    clock, link = Clock(), Link(fake.address)
    with pytest.raises(NoKernel, match="does not answer"):
        joining = join(link, Protocol(clock), Caller("x"), 0.0)
        while True:
            clock.now += int(next(joining) * 1e10)
    link.close()


def test_a_session_that_is_unknown_gives_a_new_one(fake: Any) -> None:
    clock, link = Clock(), Link(fake.address)
    core = Protocol(clock)
    first, _ = drive(join(link, core, Caller("x"), 0.0), link, clock)
    assert settle(core, first) == [] and core.welcome is first
    fake.forget()
    second, _ = drive(join(link, core, Caller("x"), 0.0), link, clock)
    assert [hello["resume"] for hello in fake.hellos] == [None, first.token, None]
    assert settle(core, second) == []
    assert first.session in core.ended
    link.close()


def test_a_refusal_of_a_first_hello_is_final(fake: Any) -> None:
    fake.on("hello", lambda request: request.fail(Denied("not you")))
    clock, link = Clock(), Link(fake.address)
    with pytest.raises(Denied):
        drive(join(link, Protocol(clock), Caller("x"), 5.0), link, clock)
    assert not link.is_open
    link.close()


def test_giving_up_says_why() -> None:
    core = Protocol()
    give_up(core, NoKernel("ipc://x", "nobody"))
    with pytest.raises(PeerGone, match=r"session ended with it \(no kernel answers at ipc://x.*opens a new session"):
        from llmos.syscalls.calls import ListDir

        core.start(ListDir(path="/"))
    give_up(core, NoKernel("ipc://x", "nobody"), "it was ended by SIGSEGV")
    assert core.ended == "the connection to the kernel broke: it was ended by SIGSEGV"

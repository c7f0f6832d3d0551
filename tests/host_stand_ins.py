"""A supervisor over stand-ins for the host program: the processes are real, what they say is fed by the test."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framed import Framed
from watching import Loop

from llmos.kernel.channel import Channel
from llmos.kernel.config import DriverConfig
from llmos.kernel.journal import Journal
from llmos.kernel.supervisor import DEVICES, Driver, DriverState, Observer, Supervisor
from llmos.syscalls.events import HostEvent
from llmos.syscalls.types import Reason
from llmos.syscalls.wire import Message, MessageKind, pack, unpack

STAND_IN = """
    import os, signal, sys
    what = os.environ["STAND_IN"]
    if what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(*sys.argv[1:], os.environ["OMP_NUM_THREADS"], os.environ["LLMOS_PARENT_PID"], flush=True)
    if what == "exits":
        print("last words", flush=True)
        sys.exit(3)
    while True:
        signal.pause()
"""


class Seen(Observer):
    def __init__(self) -> None:
        self.ready: list[str] = []
        self.lost: list[str] = []
        self.events: list[HostEvent] = []
        self.states: list[str] = []

    def driver_ready(self, driver: Driver) -> None:
        self.ready.append(driver.name)

    def driver_lost(self, driver: Driver, cause: str) -> None:
        self.lost.append(cause)

    def driver_event(self, driver: Driver, event: HostEvent) -> None:
        self.events.append(event)

    def driver_changed(self, driver: Driver, reasons: Sequence[Reason]) -> None:
        self.states.append(driver.state.value)


class HeldChannel(Channel):
    """The test holds the host's end as well as the stand-in, which says nothing and reads nothing."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.host = Framed(self.theirs.dup())

    def says(self, frames: Sequence[bytes]) -> None:
        self.host.send(frames)
        self._happened()

    def close(self) -> None:
        super().close()
        self.host.close()


class Hosts:
    """A supervisor over stand-ins for the host program."""

    def __init__(self, folder: Path) -> None:
        package = folder / "llmos" / "drivers"
        package.mkdir(parents=True)
        for place in (package, package.parent):
            (place / "__init__.py").touch()
        (package / "host.py").write_text(textwrap.dedent(STAND_IN))
        self.loop, self.seen = Loop(), Seen()
        self.journal = Journal(1000, None, time.time, None)
        self.environ = {**os.environ, "PYTHONPATH": str(folder), "STAND_IN": "waits"}
        self.supervisor = Supervisor(
            self.loop.runner, self.loop, self.journal, self.seen, self.environ, time.time, 4242
        )

    def add(self, what: str = "waits", group: str = DEVICES, **settings: Any) -> Driver:
        self.supervisor._environ["STAND_IN"] = what
        return self.supervisor.add("null0", group, DriverConfig(**settings), 2)

    def start(self, what: str = "waits", **settings: Any) -> Driver:
        """A driver whose process is up."""
        driver = self.add(what, **settings)
        self.supervisor.start(driver)
        self.loop.until(lambda: driver.child is None or driver.child.tail())
        return driver

    def channel(self, driver: Driver) -> HeldChannel:
        assert isinstance(driver.channel, HeldChannel)
        return driver.channel

    def says(self, driver: Driver, kind: MessageKind, body: Any, name: str = "", number: int = 0) -> None:
        self.channel(driver).says(pack(kind, number, name, body))

    def sent(self, driver: Driver) -> list[Message]:
        """What the driver was sent since this was asked last."""
        host = self.channel(driver).host
        messages = []
        while host.poll(0):
            messages.append(unpack(host.receive()))
        return messages

    def beats(self, driver: Driver, may_take_s: float = 60.0, seq: int = 1) -> None:
        self.says(driver, MessageKind.BEAT, {"seq": seq, "steps": 7, "busy_with": "a step", "may_take_s": may_take_s})

    def ready(self, driver: Driver, name: str = "null0") -> None:
        devices = [{"name": name, "kind": "null", "memory_bytes": 10}]
        self.says(driver, MessageKind.EVENT, {"devices": devices}, "ready")

    def up(self, **settings: Any) -> Driver:
        driver = self.start(**settings)
        self.beats(driver)
        self.ready(driver)
        assert driver.state is DriverState.READY
        return driver

    def until(self, driver: Driver, state: DriverState) -> None:
        self.loop.until(lambda: driver.state is state)

    def close(self) -> None:
        for driver in self.supervisor.running:
            self.supervisor.kill_now(driver)
        assert self.loop.watched == 0
        self.loop.close()

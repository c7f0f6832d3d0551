"""A kernel in this process whose programs and hosts are scripts: every message is handled at once, on a clock of ours.

Programs are the system tests' `RawClient` over a `Wire` instead of a socket, so the same checks hold: nothing arrives
after the one terminal frame. Hosts answer through a real `Link`; a call that is held is answered when the test says so.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmos.kernel import config as configuration
from llmos.kernel.core import Kernel
from llmos.kernel.link import Link
from llmos.kernel.memory.machine import Sample
from llmos.kernel.pending import Runner
from llmos.kernel.session import Peer, Session
from llmos.kernel.supervisor import Driver, DriverState
from llmos.syscalls.driver import ContextOpened, Folder, Loaded, LocalFile, Located, Opened, PlanRows, Tuning
from llmos.syscalls.errors import LlmosError, NotFound, NotSupported
from llmos.syscalls.events import DeviceFacts, HostEvent
from llmos.syscalls.types import Choice, Data, Entry, Freed, Inference, LedgerRow, Usage, Written
from llmos.syscalls.wire import MessageKind, error_frames, pack, unpack
from system.raw_client import RawClient
from watching import Loop

MEMORY = 1 << 20
HOST_MEMORY = 1 << 30
MODEL_BYTES = 1 << 10


class StillMachine:
    """The memory of a machine on which nothing happens but what the test says."""

    def __init__(self) -> None:
        self.total = self.available = HOST_MEMORY
        self.own: dict[int, int] = {}
        """Anonymous bytes by process."""

    def sample(self, processes: Collection[int], now: float) -> Sample:
        return Sample(self.total, self.available, {each: self.own.get(each, 0) for each in processes})


class Idle:
    """A watcher that sees nothing: the test calls what it would call."""

    def __init__(self) -> None:
        self.callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self.callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        del self.callbacks[fd]


def rows(size: int = MODEL_BYTES, what: str = "weights", owner: str = "") -> list[LedgerRow]:
    return [LedgerRow(device="null0", what=what, owner=owner, predicted=size, allocator=size, driver=size)]


def loaded(size: int = MODEL_BYTES, **fields: Any) -> Loaded:
    facts: dict[str, Any] = {"architecture": "Echo", "tasks": ["text-generation"], "context": 64, "parameters": 7}
    return Loaded(**{**facts, "rows": rows(size), "slots": 2, **fields})


def inference(text: str = "ok", new: int = 2, prompt: int = 3) -> Inference:
    return Inference(
        id="r",
        task="text-generation",
        model_version="?",
        choices=[Choice(index=0, text=text, tokens=[1] * new, reason="length")],
        usage=Usage(prompt_tokens=prompt, new_tokens=new),
    )


def located(body: Mapping[str, Any]) -> Located:
    """/models/NAME[@VERSION]: one file, the version 1 unless the path names another."""
    path, _, version = body["path"].partition("@")
    version = version or "1"
    file = LocalFile(name="w", path=f"/none{path}/{version}", bytes=MODEL_BYTES)
    manifest = {"architecture": "Echo", "tasks": ["text-generation"], "context": 64, "parameters": 7}
    return Located(path=path, version=version, files=[file], manifest=manifest, token=f"{path}@{version}")


class ScriptedHost:
    """The process behind a link. `answers` maps a call to its result, an error, or a function of its body."""

    def __init__(self, inside: Inside, driver: Driver) -> None:
        self._inside = inside
        self.driver = driver
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.held: dict[str, list[int]] = defaultdict(list)
        """Numbers of the calls that wait for the test, by name."""
        self.holds: set[str] = {"submit"}
        self.answers: dict[str, Any] = {
            "plan": PlanRows(rows=rows()),
            "load": loaded(),
            "wake": loaded(),
            "sleep": loaded(rows=[]),
            "unload": Freed(bytes=MODEL_BYTES),
            "drop_context": Freed(bytes=0),
            "lease": NotSupported("nothing here can be shared", why="a script"),
            "end_lease": Freed(bytes=0),
            "open_context": ContextOpened(tokens=0, max_tokens=16, bytes=16),
            "submit": inference(),
            "locate": located,
            "stat": lambda body: Entry(path=body["path"], kind="folder"),
            "open": Opened(token="f1", bytes=10, version="v1"),
            "read": Data(data=b"0123456789", eof=True),
            "write": lambda body: Written(count=body["source_length"] or len(body["data"])),
            "close": {"version": "v2"},
            "list": [],
            "search": [],
            "fs_control": {"fields": {"done": True}},
        }

    def send(self, frames: Sequence[bytes]) -> None:
        message = unpack(list(frames))
        self.calls.append((message.name, message.body))
        if message.name in self.holds:
            self.held[message.name].append(message.request)
        else:
            answer = self.answers.get(message.name, {})
            later = self._inside.kernel.runner.after  # a process never answers within the call
            later(0, lambda: self._answer(message.request, message.name, answer, message.body))

    def _answer(self, number: int, name: str, answer: Any, body: Mapping[str, Any]) -> None:
        value = answer(body) if callable(answer) else answer
        if isinstance(value, LlmosError):
            frames = error_frames(number, value)
        else:
            kind = MessageKind.END if name == "submit" else MessageKind.REPLY
            frames = pack(kind, number, "", {"value": value})
        if self.driver.link is not None:
            assert self.driver.link.receive(frames) is None

    def release(self, name: str, value: Any = None) -> None:
        """Answer the oldest held call of that name."""
        number = self.held[name].pop(0)
        self._answer(number, name, self.answers.get(name, {}) if value is None else value, {})
        self._inside.settle()

    def chunk(self, *chunks: Mapping[str, Any], of: int = 0) -> None:
        """Send chunks of the held submit at position `of`."""
        number = self.held["submit"][of]
        assert self.driver.link is not None
        items = [[number, chunk] for chunk in chunks]
        assert self.driver.link.receive(pack(MessageKind.CHUNK, 0, "", {"items": items})) is None
        self._inside.settle()

    def progress(self, name: str, done: int) -> None:
        assert self.driver.link is not None
        body = {"done": done, "total": 4, "unit": "bytes", "stage": "weights"}
        self.driver.link.receive(pack(MessageKind.PROGRESS, self.held[name][0], "", body))
        self._inside.settle()

    def event(self, event: HostEvent) -> None:
        self._inside.kernel.observer.driver_event(self.driver, event)
        self._inside.settle()

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def last(self, name: str) -> dict[str, Any]:
        """Arguments of the newest call of that name."""
        return next(body for called, body in reversed(self.calls) if called == name)

    def dies(self, state: DriverState = DriverState.BACKOFF, cause: str = "killed by SIGKILL") -> None:
        """What the supervisor does when the process has ended."""
        driver, link = self.driver, self.driver.link
        assert link is not None
        driver.link = driver.facts = None
        driver.cause, driver.state = cause, state
        self.held.clear()
        link.lost(cause)
        self._inside.kernel.observer.driver_lost(driver, cause)
        self._inside.settle()

    def starts(self) -> None:
        """The process is up and ready."""
        driver, kernel = self.driver, self._inside.kernel
        driver.link = Link(driver.name, kernel.runner, self.send)
        driver.state = DriverState.READY
        if driver.is_device:
            driver.facts = DeviceFacts(name=driver.name, kind="null", memory_bytes=MEMORY)
        waiters, driver.ready_waiters = driver.ready_waiters, []
        for waiter in waiters:
            waiter.set(driver)
        kernel.observer.driver_ready(driver)
        self._inside.settle()


class Wire:
    """Stands for the socket of a program."""

    def __init__(self, inside: Inside, route: bytes, peer: Peer) -> None:
        self._inside = inside
        self.route = route
        self.peer = peer
        self.inbox: list[list[bytes]] = []

    def send_multipart(self, frames: Sequence[bytes]) -> None:
        self._inside.kernel.dispatcher.receive(self.route, self.peer, list(frames))
        self._inside.settle()

    def poll(self, _milliseconds: int) -> bool:
        if not self.inbox:
            self._inside.turn()
        return bool(self.inbox)

    def recv_multipart(self) -> list[bytes]:
        return self.inbox.pop(0)


class Program(RawClient):
    """A program of a scripted kernel."""

    def __init__(self, wire: Wire) -> None:
        self.answers, self.strays, self.beats, self.grants = {}, [], [], {}
        self.session = self.token = ""
        self.system = self.handle = self._number = 0
        self._alive = lambda: None
        self._socket: Any = wire

    @property
    def wire(self) -> Wire:
        wire: Wire = self._socket
        return wire

    def close(self) -> None:
        """Nothing to close: the session ends with the kernel."""

    def drain(self) -> None:
        """Take in all that has arrived."""
        while self.wire.inbox:
            self.receive()

    def done(self, number: int) -> bool:
        """Whether a request has its answer."""
        self.drain()
        return self.answers[number].kind is not None

    def control(self, handle: int, action: str, **options: Any) -> Any:
        return self.call("control_object", handle=handle, action=action, options=options)

    def control_error(self, handle: int, action: str, **options: Any) -> LlmosError:
        return self.error("control_object", handle=handle, action=action, options=options)

    def state(self, handle: int) -> str:
        return str(self.call("stat_object", handle=handle)["state"])


class Inside:
    """The kernel, its clock and its wires. With a `loop` time and children are real, without one nothing waits."""

    def __init__(self, folder: Path, settings: str = "", loop: Loop | None = None, drivers: str = "null0") -> None:
        self.now = 1_000_000_000
        self.loop = loop
        self.wires: dict[bytes, Wire] = {}
        self.cut: set[bytes] = set()
        """Routes whose connection is gone."""
        self.watcher: Any = loop or Idle()
        file = folder / "config.toml"
        file.write_text(settings)
        names = [name for name in drivers.split(",") if name]
        paths = {"paths.home": str(folder / "home"), "paths.runtime": str(folder / "run"), "drivers.load": names}
        quiet = {"journal.path": "none", "journal.level": "error"}
        self.config = configuration.load({"config": str(file), **paths, **quiet})
        runner = loop.runner if loop is not None else Runner(lambda: self.now)
        self.machine = StillMachine()
        self.kernel = Kernel(self.config, runner, self.watcher, self.wall, self._to_program, self.machine)
        self.hosts = {name: ScriptedHost(self, driver) for name, driver in self.kernel.supervisor.drivers.items()}
        for host in self.hosts.values():
            host.starts()

    @property
    def null(self) -> ScriptedHost:
        return self.hosts["null0"]

    @property
    def models(self) -> ScriptedHost:
        return self.hosts["models"]

    @property
    def files(self) -> ScriptedHost:
        return self.hosts["files"]

    def wall(self) -> float:
        return self.kernel_clock() / 1e9

    def tuning(self) -> None:
        """Let the null device tune in four steps, with 512 bytes, and nothing lie in /models that is not loaded."""
        self.null.answers.setdefault("tune", Tuning(rows=rows(512, "tuning"), steps=4, tokens=80))
        nothing = NotFound("nothing is there")
        self.models.answers.update(stat=nothing, stage=Folder(path="/none", token="s1"), commit={"version": "1"})

    def kernel_clock(self) -> int:
        return self.loop.runner.clock() if self.loop is not None else self.now

    def _to_program(self, route: bytes, frames: Sequence[bytes]) -> bool:
        if route in self.cut:
            return False
        self.wires[route].inbox.append(list(frames))
        return True

    def settle(self) -> None:
        """Run what is ready, as the loop does after each message."""
        self.kernel.runner.run(self.kernel_clock())
        self.kernel.flush()

    def turn(self) -> None:
        """Something must happen now: with a loop it is waited for."""
        if self.loop is None:
            raise AssertionError("nothing will come: no answer waits and no time passes")
        ready = {route: len(wire.inbox) for route, wire in self.wires.items()}

        def changed() -> bool:
            self.kernel.flush()
            return any(len(wire.inbox) != ready[route] for route, wire in self.wires.items())

        self.loop.until(changed)

    def advance(self, seconds: float) -> None:
        """Let time pass; timers fire when they are due, and the tick comes at the end."""
        end = self.now + int(seconds * 1e9)
        while (due := self.kernel.runner.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.settle()
        self.now = end
        self.kernel.tick(self.now)
        self.settle()

    def connect(self, peer: Peer | None = None) -> Program:
        """A connection without a session."""
        route = f"route {len(self.wires)}".encode()
        wire = Wire(self, route, peer or Peer(os.getuid(), os.getgid(), os.getpid()))
        self.wires[route] = wire
        return Program(wire)

    def program(self, peer: Peer | None = None, **hello: Any) -> Program:
        program = self.connect(peer)
        program.hello(**hello)
        return program

    def session(self, program: Program) -> Session:
        return self.kernel.sessions.by_id[program.session]

    def close(self) -> None:
        for host in self.hosts.values():
            if host.driver.link is not None:
                host.driver.link.lost("the test is over")
                host.driver.link = None
        if any(request.job is None for request in self.kernel.requests.values()):  # a handler raised, the test failed
            self.kernel.requests.clear()
        self.kernel.end_requests()
        self.kernel.close()


@contextmanager
def inside(folder: Path, settings: str = "", loop: Loop | None = None, drivers: str = "null0") -> Iterator[Inside]:
    kernel = Inside(folder, settings, loop, drivers)
    try:
        yield kernel
    finally:
        kernel.close()
    assert not kernel.kernel.requests, "requests were left without an answer"
    assert not kernel.kernel.sessions.by_id

"""A client that speaks the wire itself, so that a test sees every frame that the kernel sends.

It checks the first promise by itself: nothing ever arrives for a request after its terminal frame.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from llmos.syscalls.errors import LlmosError, NotFound, from_wire
from llmos.syscalls.wire import TERMINAL, Message, MessageKind, pack, unpack

PATIENCE_S = 40.0
"""How long anything may take on a busy machine before a test gives up. Nothing is timed against it."""


@dataclass
class Answer:
    """All that has arrived for one request."""

    number: int
    name: str
    chunks: list[dict[str, Any]] = field(default_factory=list)
    progress: list[dict[str, Any]] = field(default_factory=list)
    kind: MessageKind | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> LlmosError | None:
        return from_wire(self.body) if self.kind is MessageKind.ERROR else None

    @property
    def value(self) -> Any:
        """The result. Raises the error that the kernel answered."""
        assert self.kind is not None, f"{self.name} ({self.number}) has no answer yet"
        if (error := self.error) is not None:
            raise error
        return self.body["value"]

    @property
    def text(self) -> str:
        """All chunks joined."""
        return "".join(chunk.get("text", "") for chunk in self.chunks)

    @property
    def reasons(self) -> list[str]:
        return [reason["code"] for reason in self.body["reasons"]]


class RawClient:
    """One connection. `alive` raises when the kernel has ended, so that a test fails at once and says why."""

    def __init__(self, socket: Path, alive: Callable[[], None] = lambda: None, identity: bytes | None = None) -> None:
        self.answers: dict[int, Answer] = {}
        self.strays: list[Message] = []
        """Errors about no request."""
        self.beats: list[Message] = []
        self.grants: dict[str, int] = {}
        self.session = self.token = ""
        self.system = self.handle = 0
        self._alive = alive
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.sndhwm = self._socket.rcvhwm = 0
        if identity is not None:
            self._socket.setsockopt(zmq.IDENTITY, identity)
        self._socket.connect(f"ipc://{socket}")
        self._number = 0

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._context.destroy(linger=0)

    # ---- sending

    def send(self, call: str, **body: Any) -> int:
        """Make a call without waiting; returns its number."""
        number = self.expect(call)
        self._socket.send_multipart(pack(MessageKind.CALL, number, call, body))
        return number

    def expect(self, call: str) -> int:
        """A number for a call that the test itself puts into frames."""
        self._number += 1
        self.answers[self._number] = Answer(self._number, call)
        return self._number

    def send_soon(self, call: str, seconds: float, **body: Any) -> int:
        """Make a call whose deadline is so many seconds away."""
        return self.send(call, deadline=time.monotonic_ns() + int(seconds * 1e9), **body)

    def send_frames(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def credit(self, number: int, credit: int) -> None:
        self._socket.send_multipart(pack(MessageKind.CREDIT, number, "", {"credit": credit}))

    def cancel(self, number: int) -> None:
        self._socket.send_multipart(pack(MessageKind.CANCEL, number))

    # ---- receiving

    def readable(self) -> bool:
        """Whether something has arrived that was not received yet."""
        return bool(self._socket.poll(0))

    def receive(self) -> Message:
        """The next message, whatever it is about."""
        message = self.receive_raw()
        self._file(message)
        return message

    def receive_raw(self) -> Message:
        """The same, for a test that keeps no account of its requests."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._socket.poll(50):
            self._alive()
            waiting = [f"{a.name} ({a.number})" for a in self.answers.values() if a.kind is None]
            assert time.monotonic() < deadline, f"nothing came; without answer: {', '.join(waiting) or 'none'}"
        return unpack(self._socket.recv_multipart())

    def _file(self, message: Message) -> None:
        if message.kind is MessageKind.CHUNK:
            for number, item in message.body["items"]:
                self._open(number, message).chunks.append(item)
        elif message.kind is MessageKind.PROGRESS:
            self._open(message.request, message).progress.append(message.body)
        elif message.kind in TERMINAL and message.request:
            answer = self._open(message.request, message)
            answer.kind, answer.body = message.kind, message.body
        elif message.kind is MessageKind.BEAT:
            self.beats.append(message)
        else:
            assert message.kind is MessageKind.ERROR, f"unexpected {message}"
            self.strays.append(message)

    def _open(self, number: int, message: Message) -> Answer:
        answer = self.answers[number]
        assert answer.kind is None, f"{answer.name} ({number}) was answered and then came {message}"
        return answer

    def until(self, done: Callable[[], bool]) -> None:
        """Receive until something is so."""
        while not done():
            self.receive()

    def wait(self, number: int) -> Answer:
        """Receive until the terminal frame of a request."""
        answer = self.answers[number]
        self.until(lambda: answer.kind is not None)
        return answer

    def first_chunk(self, number: int) -> Answer:
        answer = self.answers[number]
        self.until(lambda: bool(answer.chunks) or answer.kind is not None)
        assert answer.chunks, f"{answer.name} ended without a chunk: {answer.body}"
        return answer

    def stray(self) -> LlmosError:
        """The next error about no request."""
        self.until(lambda: bool(self.strays))
        return from_wire(self.strays.pop(0).body)

    def quiet(self) -> None:
        """All that the kernel had sent until now has arrived, and was no second answer."""
        self.call("stat_object", handle=self.system)

    # ---- calls

    def call(self, name: str, **body: Any) -> Any:
        """Make a call and wait for its value. Raises its error."""
        return self.wait(self.send(name, **body)).value

    def error(self, name: str, **body: Any) -> LlmosError:
        """Make a call that must fail."""
        answer = self.wait(self.send(name, **body))
        assert answer.error is not None, f"{name} succeeded: {answer.value}"
        return answer.error

    def hello(self, program: str = "test", **body: Any) -> RawClient:
        """Open a session and note what it gives."""
        return self.welcome(self.call("hello", protocol=1, program=program, **body))

    def welcome(self, value: Mapping[str, Any]) -> RawClient:
        self.session, self.token = value["session"], value["token"]
        self.system, self.handle = value["system"], value["handle"]
        self.grants = {grant["name"]: grant["handle"] for grant in value["grants"]}
        return self

    def load(self, model: str, /, device: str = "null0", **options: Any) -> int:
        """Load /models/NAME; returns the handle."""
        handle = self.grants.get(device)
        info = self.call("load_model", path=f"/models/{model}", device=handle, options=options)
        return int(info["handle"])

    def start(self, model: int, text: str, call: str = "infer", **sampling: Any) -> int:
        """Send an inference of a text; arguments of the call itself go before the sampling fields, as `call_*`."""
        common = {name.removeprefix("call_"): sampling.pop(name) for name in list(sampling) if name.startswith("call_")}
        return self.send(call, model=model, input={"type": "text", "text": text}, sampling=sampling, **common)

    def infer(self, model: int, text: str, **sampling: Any) -> dict[str, Any]:
        value: dict[str, Any] = self.wait(self.start(model, text, **sampling)).value
        return value

    # ---- looking

    def names(self, folder: str) -> list[str]:
        """Names in a folder of the namespace."""
        return [entry["path"].rpartition("/")[2] for entry in self.call("list_dir", path=folder)]

    def read(self, path: str) -> bytes:
        """A small file of the namespace."""
        file = self.call("open_file", path=path)
        data: bytes = self.call("read_file", file=file["handle"], offset=0, count=1 << 16)["data"]
        self.call("close_handle", handle=file["handle"])
        return data

    def driver(self, name: str = "null0") -> dict[str, Any]:
        """A driver as it is now."""
        found: list[dict[str, Any]] = self.call("list_objects", system=self.system, kind="driver", prefix=name)
        return next(driver for driver in found if driver["name"] == name)

    def host(self, name: str = "null0") -> int:
        """The pid of a driver's host."""
        return int(self.driver(name)["fields"]["pid"])

    def _in_flight(self) -> Iterator[dict[str, Any]]:
        for name in self.names("/proc/requests"):
            try:
                request = json.loads(self.read(f"/proc/requests/{name}"))
            except NotFound:
                continue  # it has ended meanwhile
            if request["call"] not in ("list_dir", "open_file", "read_file"):
                yield request

    def requests(self) -> dict[str, str]:
        """State of each request in flight, by the name of its call; this client's own looking left out."""
        return {request["call"]: request["state"] for request in self._in_flight()}

    def request_id(self, call: str) -> str:
        """The stable id of a request in flight."""
        return next(str(request["id"]) for request in self._in_flight() if request["call"] == call)

    # ---- events

    @contextmanager
    def watching(self, *kinds: str, about: str = "", credit: int = 10_000) -> Iterator[Answer]:
        """A stream of events that has begun; it is cancelled at the end."""
        number = self.send("watch_events", system=self.system, kinds=list(kinds), about=about, credit=credit)
        self.quiet()
        yield self.answers[number]
        self.cancel(number)
        self.wait(number)

    def await_driver(self, state: str, name: str = "null0") -> None:
        """Wait until a driver is in a state."""
        with self.watching("device", "driver", about=name) as events:
            if self.driver(name)["state"] != state:
                self.until(lambda: state in _states(events))

    @contextmanager
    def driver_goes_through(self, *states: str, name: str = "null0") -> Iterator[None]:
        """What the block does makes a driver go through these states, in order, with others in between."""
        with self.watching("device", "driver", about=name) as events:
            yield
            self.until(lambda: _in_order(states, _states(events)))


def _states(events: Answer) -> list[str]:
    return [event["fields"]["state"] for event in events.chunks]


def _in_order(wanted: Sequence[str], seen: Sequence[str]) -> bool:
    left = iter(seen)
    return all(state in left for state in wanted)

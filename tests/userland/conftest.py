"""A kernel that does what a test tells it to, behind a real socket; a real kernel; both clients with blocking calls."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import json
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest
import zmq
from system.model_folder import write_model, write_versions

from llmos.syscalls import wire
from llmos.syscalls.errors import Denied, LlmosError
from llmos.syscalls.types import Handle, LimitsOut, Welcome
from llmos.syscalls.wire import MessageKind, Progress, Reply
from llmos.userland.aio import AsyncClient, AsyncStreamReader
from llmos.userland.async_objects import AsyncObject, AsyncSystem
from llmos.userland.cli.main import main
from llmos.userland.client import Client
from llmos.userland.objects import System
from llmos.userland.private import PrivateKernel


class Request:
    """One call that the stand-in kernel got; answers it."""

    def __init__(self, fake: FakeKernel, route: bytes, number: int, name: str, body: dict[str, Any]) -> None:
        self.fake, self.route, self.number, self.name, self.body = fake, route, number, name, body

    def reply(self, value: Any = None, kind: MessageKind = MessageKind.REPLY) -> None:
        self._send(wire.pack(kind, self.number, "", Reply(value=value, request=f"r{self.number}")))

    def end(self, value: Any = None) -> None:
        self.reply(value, MessageKind.END)

    def fail(self, error: LlmosError) -> None:
        self._send(wire.error_frames(self.number, error))

    def progress(self, done: int, total: int = 0) -> None:
        self._send(wire.pack(MessageKind.PROGRESS, self.number, "", Progress(done=done, total=total)))

    def chunk(self, *items: dict[str, Any]) -> None:
        body = {"items": [[self.number, item] for item in items]}
        self._send(wire.pack(MessageKind.CHUNK, self.number, "", body))

    def raw(self, *frames: bytes) -> None:
        self._send(list(frames))

    def _send(self, frames: list[bytes]) -> None:
        self.fake.post(lambda socket: socket.send_multipart([self.route, *frames]))


class FakeKernel:
    """Answers `hello` and what `on` was told to; keeps every call, credit and cancel."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder / 'kernel.sock'}"
        self.path = folder / "kernel.sock"
        self.handlers: dict[str, Callable[[Request], None]] = {
            "hello": self._hello, "close_handle": lambda request: request.reply({}),
        }  # fmt: skip
        self.calls: SimpleQueue[Request] = SimpleQueue()
        self.credits: list[int] = []
        self.cancels: SimpleQueue[int] = SimpleQueue()
        self.hellos: list[dict[str, Any]] = []
        self.sessions: dict[str, str] = {}
        self.open: dict[int, Request] = {}
        self._names = 0
        self._work: SimpleQueue[Callable[[Any], Any]]
        self._thread: threading.Thread | None = None
        self.start()

    def on(self, name: str, handler: Callable[[Request], None]) -> None:
        self.handlers[name] = handler

    def start(self) -> None:
        """Listen, also again after `stop`."""
        ready = threading.Event()
        self._work = SimpleQueue()
        self._context: zmq.Context[Any] = zmq.Context()
        self._wake = self._context.socket(zmq.PUSH)
        self._wake.bind(f"inproc://wake-{id(self)}")
        self._thread = threading.Thread(target=self._run, args=(ready,), name="fake kernel")
        self._thread.start()
        assert ready.wait(10)

    def post(self, work: Callable[[Any], Any]) -> None:
        """Have the socket's thread do something; may be called from any thread."""
        self._work.put(work)
        if threading.current_thread() is not self._thread:
            with contextlib.suppress(zmq.Again):
                self._wake.send(b"", zmq.NOBLOCK)

    def stop(self) -> None:
        """Close the socket, as when the kernel ends; returns when that is done."""
        if self._thread is not None:
            self.post(lambda _: "stop")
            self._thread.join(10)
            self._wake.close(0)
            self._context.term()
            self._thread = None
            self.path.unlink(missing_ok=True)

    def forget(self) -> None:
        """No session survives: the next kernel knows nothing."""
        self.sessions.clear()

    def _run(self, ready: threading.Event) -> None:
        router = self._context.socket(zmq.ROUTER)
        router.bind(self.address)
        waking = self._context.socket(zmq.PULL)
        waking.connect(f"inproc://wake-{id(self)}")
        poller = zmq.Poller()
        for socket in (router, waking):
            poller.register(socket, zmq.POLLIN)
        ready.set()
        running = True
        while running:
            events = dict(poller.poll())
            if waking in events:
                waking.recv()
            if router in events:
                self._message(router.recv_multipart())
            while not self._work.empty():
                running = self._work.get()(router) != "stop" and running
        router.close(0)
        waking.close(0)

    def _message(self, frames: list[bytes]) -> None:
        message = wire.unpack(frames[1:])
        if message.kind is MessageKind.CREDIT:
            self.credits.append(message.body["credit"])
        elif message.kind is MessageKind.CANCEL:
            self.cancels.put(message.request)
            if handler := self.handlers.get("cancel"):
                handler(self.open[message.request])
        else:
            request = Request(self, frames[0], message.request, message.name, message.body)
            self.open[message.request] = request
            if message.name in self.handlers:
                self.handlers[message.name](request)
            if message.name != "hello":
                self.calls.put(request)

    def _hello(self, request: Request) -> None:
        self.hellos.append(request.body)
        token = request.body["resume"]
        if token is not None and token not in self.sessions:
            request.fail(Denied("no such session"))
            return
        self._names += 1
        session = self.sessions.pop(token) if token is not None else f"s{self._names}"
        renewed = f"token{self._names}"
        self.sessions[renewed] = session
        request.reply(
            Welcome(
                session=session, token=renewed, protocol=1, features=[], limits=LimitsOut(), grants=[],
                wire=wire.LIMITS, handle=Handle(1), system=Handle(2),
            )
        )  # fmt: skip


@pytest.fixture
def fake(folder: Path) -> Iterator[FakeKernel]:
    kernel = FakeKernel(folder)
    yield kernel
    kernel.stop()


class DrivenStream:
    """An async stream reader with the methods of the sync one."""

    def __init__(self, driven: Driven, reader: AsyncStreamReader[Any, Any]) -> None:
        self._driven, self._reader = driven, reader

    def __iter__(self) -> DrivenStream:
        return self

    def __next__(self) -> Any:
        try:
            return self._driven.do(self._reader.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def result(self) -> Any:
        return self._driven.do(self._reader.result())

    def cancel(self) -> None:
        self._reader.cancel()
        self._driven.do(asyncio.sleep(0))

    def close(self) -> None:
        self._driven.do(self._reader.close())

    def __enter__(self) -> DrivenStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Driven:
    """The async client with the methods of the sync one."""

    def __init__(self, address: str, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        try:
            self.client = self.do(AsyncClient.connect(address, **options))
        except BaseException:
            self.loop.close()
            raise

    def do(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def call(self, request: Any, **options: Any) -> Any:
        return self.do(self.client.call(request, **options))

    def stream(self, request: Any, **options: Any) -> DrivenStream:
        return DrivenStream(self, self.do(self.client.stream(request, **options)))

    def run(self, flow: Any) -> Any:
        return self.do(self.client.run(flow))

    def renew(self) -> None:
        self.do(self.client.renew())

    @property
    def ended(self) -> str:
        self.do(asyncio.sleep(0))
        return self.client.ended

    @property
    def welcome(self) -> Welcome:
        return self.client.welcome

    def close(self) -> None:
        self.do(self.client.close())
        self.loop.close()


Connect = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, fake: FakeKernel) -> Iterator[Connect]:
    """Makes clients of the stand-in kernel; closes them."""
    made = []

    def make(**options: Any) -> Any:
        kind = Client if request.param == "sync" else Driven
        client = kind(options.pop("address", fake.address), **options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


# ---- a real kernel


class Twin:
    """An object of the async face with the methods of the sync one: what it returns is waited for and wrapped."""

    def __init__(self, loop: asyncio.AbstractEventLoop, inner: Any) -> None:
        self.loop, self.inner = loop, inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return self._plain(found)
        return lambda *args, **kwargs: self._plain(found(*map(bare, args), **{k: bare(v) for k, v in kwargs.items()}))

    def _plain(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = self.loop.run_until_complete(value)
        if isinstance(value, AsyncStreamReader):
            return TwinStream(self.loop, value)
        return Twin(self.loop, value) if isinstance(value, (AsyncObject, AsyncSystem)) else value

    def __enter__(self) -> Twin:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TwinStream(Twin):
    """The same for a stream."""

    def __iter__(self) -> TwinStream:
        return self

    def __next__(self) -> Any:
        try:
            return self.loop.run_until_complete(self.inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def result(self) -> Any:
        return self.loop.run_until_complete(self.inner.result())


def bare(value: Any) -> Any:
    return value.inner if isinstance(value, Twin) else value


@pytest.fixture(scope="module")
def kernel() -> Iterator[PrivateKernel]:
    """A kernel with the null device, a model /models/null and one with two versions, /models/two."""
    with tempfile.TemporaryDirectory(prefix="t") as home:
        write_model(Path(home, "models/null"))
        write_versions(Path(home, "models/two"), "v1", "v2")
        private = PrivateKernel(["null0", "models", "files"], home=home)
        with Client(private.address) as client:
            system = System(client)
            while any(driver.state != "ready" for driver in system.drivers()):
                time.sleep(0.01)
        yield private
        private.stop()


@pytest.fixture
def system(kernel: PrivateKernel) -> Iterator[System]:
    """The real system, with nothing loaded."""
    with System(Client(kernel.address)) as found:
        yield found
        for info in found.models():
            found.model(info.id).unload(force=True)


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, kernel: PrivateKernel) -> Iterator[Any]:
    """The real system by its sync and by its async face."""
    if request.param == "sync":
        found: Any = System(Client(kernel.address))
    else:
        loop = asyncio.new_event_loop()
        found = Twin(loop, AsyncSystem(loop.run_until_complete(AsyncClient.connect(kernel.address))))
    yield found
    for info in found.models():
        found.model(info.id).unload(force=True)
    found.close()
    if request.param == "async":
        loop.close()


# ---- the command line


class Ran(NamedTuple):
    """What one command line did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def llmos(system: System, kernel: PrivateKernel, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., Ran]:
    """Runs a command line in this process, on the real kernel, without a terminal."""
    monkeypatch.setenv("LLMOS_RUNTIME_DIR", str(kernel.folder))

    def run(line: str, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        status = main(shlex.split(line))
        return Ran(status, *capsys.readouterr())

    return run

"""The loop over real sockets, turned by the test; no drivers."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
import zmq.backend

from llmos.kernel import config as configuration
from llmos.kernel import server as module
from llmos.kernel.server import Server, peer_of, self_test
from llmos.kernel.session import Peer
from llmos.syscalls.errors import BadCall, LlmosError
from llmos.syscalls.wire import Message, MessageKind, pack
from system.raw_client import PATIENCE_S, RawClient


class Turned(RawClient):
    """A client whose waiting turns the server's loop."""

    def __init__(self, server: Server, path: Path, identity: bytes | None = None) -> None:
        super().__init__(path, identity=identity)
        self._server = server
        server.watch(self._fd, lambda: None)

    @property
    def _fd(self) -> int:
        return int(self._socket.getsockopt(zmq.FD))

    @property
    def readable(self) -> bool:
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def receive(self) -> Message:
        turn(self._server, lambda: self.readable)
        return super().receive()

    def close(self) -> None:
        self._server.unwatch(self._fd)
        super().close()


def turn(server: Server, until: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < end, "it never came to pass"
        server.turn()


class Served:
    """A server in the test's own thread."""

    def __init__(self, folder: Path, settings: str = "", **options: Any) -> None:
        self.folder = folder
        file = folder / "config.toml"
        file.write_text(settings)
        paths = {"paths.home": str(folder / "home"), "paths.runtime": str(folder / "run"), "drivers.load": []}
        self.config = configuration.load(
            {"config": str(file), **paths, "journal.path": "none", "journal.level": "error"}
        )
        self.config.paths.runtime.mkdir(mode=0o700)
        self.context: zmq.Context[Any] = zmq.Context()
        self.server = Server(self.config, self.context, **options)
        self.clients: list[Turned] = []

    def connect(self, identity: bytes | None = None) -> Turned:
        client = Turned(self.server, self.config.paths.socket, identity)
        self.clients.append(client)
        return client

    def client(self) -> Turned:
        client = self.connect()
        client.hello()
        return client

    def told(self, text: str) -> bool:
        return any(text in record.text for record in self.server.kernel.journal.read())

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.close()
        self.context.term()


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    served = Served(folder)
    yield served
    served.close()


def test_a_program_is_who_the_system_says(served: Served) -> None:
    client = served.client()
    fields = client.call("stat_object", handle=client.handle)["fields"]
    assert (fields["pid"], fields["uid"]) == (os.getpid(), os.getuid())
    assert stat.S_IMODE(served.config.paths.socket.stat().st_mode) == 0o600


def test_many_messages_at_once_are_all_answered(served: Served) -> None:
    client = served.client()
    numbers = [client.send("stat_object", handle=client.system) for _ in range(200)]
    assert [client.wait(number).value["id"] for number in numbers] == ["system"] * 200


def test_a_connection_does_not_choose_its_route(served: Served) -> None:
    client = served.connect(b"me")
    client.send("hello", protocol=1, program="x")
    assert isinstance(client.stray(), BadCall)


def test_who_cannot_be_verified_is_not_heard(folder: Path) -> None:
    def nobody(_frame: zmq.Frame) -> Peer:
        raise ValueError("no address")

    served = Served(folder, identify=nobody)
    served.connect().send("hello", protocol=1, program="x")
    turn(served.server, lambda: served.told("without a verifiable sender"))
    served.close()


def test_what_is_sent_to_a_lost_connection_is_noticed(served: Served) -> None:
    client, other = served.client(), served.client()
    session = served.server.kernel.sessions.by_id[client.session]
    served.clients.remove(client)
    client.close()

    def lost() -> bool:
        session.send(pack(MessageKind.BEAT, 0))
        other.quiet()
        return session.route is None

    turn(served.server, lost)
    assert list(served.server.kernel.routes.values()) == [served.server.kernel.sessions.by_id[other.session]]


def test_other_errors_of_sending_are_not_hidden(served: Served) -> None:
    broken = served.context.socket(zmq.ROUTER)
    broken.close()
    served.server._send_frame = partial(zmq.backend.Socket.send, broken)
    with pytest.raises(zmq.ZMQError):
        served.server.send_client(b"\0route", [b"x"])


BIG = b"x" * (1 << 20)


def parked(served: Served, client: Turned, least: int = 1) -> int:
    """Send so much that the connection takes no more; how many messages it was."""
    session = served.server.kernel.sessions.by_id[client.session]
    sent = 0
    assert session.route is not None
    while len(served.server._parked.get(session.route, ())) < least:
        served.server.send_client(session.route, [*pack(MessageKind.BEAT, 0)[:1], b"\x81\xa1n" + pack_number(sent)])
        sent += 1
        assert sent < 10_000
    return sent


def pack_number(number: int) -> bytes:
    packed: bytes = msgpack.packb([number, BIG])
    return packed


@pytest.fixture
def narrow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server whose queues hold two messages."""
    monkeypatch.setattr(module, "_QUEUE", 2)
    served = Served(folder)
    yield served
    served.close()


def test_what_a_slow_reader_does_not_take_yet_is_kept_in_order(narrow: Served) -> None:
    client = narrow.client()
    sent = parked(narrow, client)
    narrow.server.turn()
    client.until(lambda: len(client.beats) == sent)
    assert [message.body["n"][0] for message in client.beats] == list(range(sent))
    assert narrow.server._parked == {}
    client.quiet()


def test_a_reader_that_takes_nothing_is_ended(narrow: Served) -> None:
    client = narrow.client()
    while narrow.server.kernel.sessions.by_id:
        parked(narrow, client, least=20)
        narrow.server.turn()
    assert narrow.server._parked == {}
    assert narrow.told("it does not read its answers")


def test_what_a_stranger_does_not_read_is_dropped(narrow: Served) -> None:
    client = narrow.client()
    session = narrow.server.kernel.sessions.by_id[client.session]
    parked(narrow, client, least=20)
    narrow.server.kernel.sessions.close(session, "test")
    turn(narrow.server, lambda: narrow.server._parked == {})


def test_a_slow_turn_is_told(folder: Path) -> None:
    now = [0]

    def clock() -> int:
        now[0] += 60_000_000
        return now[0]

    served = Served(folder, clock=clock)
    served.server.turn()
    assert served.told("one turn of the loop took")
    served.close()


def test_the_loop_stays_awake_for_an_answer_that_is_near_and_no_longer(folder: Path) -> None:
    now = [0]

    def clock() -> int:
        now[0] += 10_000
        return now[0]

    served = Served(folder, clock=clock)
    runner = served.server._runner
    served.server._may_stay_awake = True
    for within, least, most in ((1_000_000, 100, 115), (0, 1, 15)):
        runner.after(0.0, lambda: None)
        runner.expect(within)
        before = now[0]
        served.server.turn()
        assert least <= (now[0] - before) // 10_000 <= most
    served.close()


def test_ticks_come_about_once_a_second(folder: Path) -> None:
    now = [0]
    served = Served(folder, clock=lambda: now[0])
    ticks: list[int] = []
    served.server.kernel.tick = ticks.append  # type: ignore[method-assign]
    served.server._runner.after(0.0, lambda: None)
    for _ in range(25):
        served.server._runner.after(0.0, lambda: None)
        served.server.turn()
        now[0] += 100_000_000
    assert ticks == [1_000_000_000, 2_000_000_000]
    served.close()


def test_descriptors_are_watched_until_they_are_not(served: Served) -> None:
    read, write = os.pipe()
    seen: list[bytes] = []
    served.server.watch(read, lambda: seen.append(os.read(read, 10)))
    os.write(write, b"x")
    turn(served.server, lambda: seen)
    served.server.unwatch(read)
    served.server.unwatch(read)
    os.write(write, b"y")
    served.server._runner.after(0.0, lambda: None)
    served.server.turn()
    assert seen == [b"x"]
    os.close(read)
    os.close(write)


def test_a_descriptor_unwatched_by_the_one_before_is_not_called(served: Served) -> None:
    pipes = [os.pipe() for _ in range(2)]
    called: list[int] = []

    def first_wins(mine: int) -> Callable[[], None]:
        def arrived() -> None:
            called.append(mine)
            for read, _write in pipes:
                served.server.unwatch(read)

        return arrived

    for read, write in pipes:
        os.write(write, b"x")
        served.server.watch(read, first_wins(read))
    served.server.turn()
    assert len(called) == 1
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_a_descriptor_that_is_used_anew_meanwhile_is_not_taken_for_the_old_one(served: Served) -> None:
    pipes = [os.pipe() for _ in range(2)]
    called: list[str] = []

    def replace(mine: int) -> Callable[[], None]:
        def arrived() -> None:
            called.append("old")
            other = pipes[1 - mine][0]
            served.server.unwatch(other)
            served.server.watch(other, lambda: called.append("new"))

        return arrived

    for place, (read, write) in enumerate(pipes):
        os.write(write, b"x")
        served.server.watch(read, replace(place))
    served.server.turn()
    assert called == ["old"]
    for read, write in pipes:
        served.server.unwatch(read)
        os.close(read)
        os.close(write)


def test_room_for_data_is_told_while_it_is_wanted(served: Served) -> None:
    ours, theirs = socket.socketpair()
    told: list[bool] = []
    served.server.watch(ours.fileno(), lambda: told.append(True))
    for wanted in (True, False):
        served.server.watch_room(ours.fileno(), wanted)
        served.server._runner.after(0.0, lambda: None)
        served.server.turn()
    assert told == [True]
    served.server.unwatch(ours.fileno())
    ours.close()
    theirs.close()


# ---- stopping


def test_a_stop_answers_what_waits_and_ends_the_loop(served: Served) -> None:
    client = served.client()
    number = client.send("watch_events", system=client.system)
    client.quiet()
    served.server.stop()
    served.server.stop()
    served.server.run()
    answer = client.answers[number]
    while answer.kind is None:
        RawClient.receive(client)
    assert "the kernel has stopped" in str(answer.error)
    error = served.connect().error("hello", protocol=1, program="late")
    assert "stopping" in str(error)


@pytest.mark.parametrize("how", ["grace", "hurry"])
def test_a_stop_does_not_wait_for_ever(served: Served, how: str) -> None:
    client = served.client()
    script = "trap '' TERM; echo up; while :; do sleep 600; done"
    task = client.call("spawn_program", system=client.system, argv=["sh", "-c", script])
    kernel = served.server.kernel
    turn(served.server, lambda: "up" in kernel.tasks.all()[0].child.tail())  # type: ignore[union-attr]
    served.server.stop(0.0 if how == "grace" else 600.0)
    if how == "hurry":
        served.server.hurry()
    served.server.run()
    assert not kernel.idle and kernel.objects[task["id"]].state() == "cancelled"


def test_a_server_may_own_its_context(folder: Path) -> None:
    served = Served(folder)
    served.close()
    server = Server(served.config)
    server.close()
    assert server._context.closed


# ---- listening


def test_a_shared_socket_is_open_to_other_users(folder: Path) -> None:
    served = Served(folder, "[listen]\nshared = true\n")
    assert stat.S_IMODE(served.config.paths.socket.stat().st_mode) == 0o666
    served.close()


def test_programs_may_come_over_inproc_when_who_they_are_is_said(folder: Path) -> None:
    peer = Peer(os.getuid(), os.getgid(), os.getpid())
    served = Served(folder, endpoint="inproc://kernel", identify=lambda _frame: peer)
    client = served.context.socket(zmq.DEALER)
    client.linger = 0
    client.connect("inproc://kernel")
    client.send_multipart(pack(MessageKind.CALL, 1, "hello", {"protocol": 1, "program": "x"}))
    turn(served.server, lambda: served.server.kernel.sessions.by_id)
    client.close()
    served.close()


# ---- identity


def test_the_self_test_passes_here(folder: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    self_test(context, folder)
    assert list(folder.iterdir()) == []
    context.term()


@pytest.mark.parametrize("lie", ["another", "silence"])
def test_a_library_that_lies_is_found_out(folder: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    if lie == "another":
        monkeypatch.setattr(module, "peer_of", lambda _frame: Peer(1, 1, 1))
    else:
        monkeypatch.setattr(zmq.Socket, "poll", lambda *_given: 0)
    context: zmq.Context[Any] = zmq.Context()
    with pytest.raises(LlmosError, match="self-test"):
        self_test(context, folder)
    context.term()


def test_a_peer_is_read_from_the_frame() -> None:
    class Frame:
        def get(self, name: str) -> str:
            return {"Peer-Address": "localhost:1:2:3"}[name]

    assert peer_of(Frame()) == Peer(1, 2, 3)  # type: ignore[arg-type]

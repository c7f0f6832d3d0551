"""What both clients do, in the same words: every test here runs with the sync and with the async one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from llmos.syscalls import calls, wire
from llmos.syscalls.errors import BadHandle, LlmosError, PeerGone, TimedOut, TooLarge
from llmos.syscalls.types import BufferOut, Data, Entry, Handle, ObjectInfo, Text, Tokens
from llmos.syscalls.wire import MessageKind
from llmos.userland.flow import ask
from llmos.userland.link import NoKernel

STAT = calls.StatObject(handle=Handle(2))
INFO = ObjectInfo(id="system", kind="system", name="system", state="running")
STREAM = calls.InferStream(model=Handle(3), input=Text(text="a"), credit=4)


def inference(text: str = "") -> dict[str, Any]:
    choices = [{"index": 0, "text": text, "tokens": [1], "reason": "stop"}]
    return {"id": "r1", "task": "text-generation", "model_version": "v", "choices": choices}


def test_a_call_gives_its_typed_result(connect: Any, fake: Any) -> None:
    fake.on("stat_object", lambda request: request.reply(INFO))
    assert connect().call(STAT) == INFO
    sent = fake.calls.get()
    assert (sent.name, sent.body["handle"]) == ("stat_object", 2)
    assert sent.body["key"] == ""


def test_the_session_says_who_calls(connect: Any, fake: Any) -> None:
    connect(program="demo", tenant="lab")
    assert (fake.hellos[0]["program"], fake.hellos[0]["tenant"], fake.hellos[0]["resume"]) == ("demo", "lab", None)


def test_an_error_of_the_kernel_is_raised_with_its_fields(connect: Any, fake: Any) -> None:
    fake.on("stat_object", lambda request: request.fail(TooLarge("too large", limit=3, got=4)))
    client = connect()
    with pytest.raises(TooLarge, match="too large") as caught:
        client.call(STAT)
    assert (caught.value.limit, caught.value.got) == (3, 4)
    fake.on("stat_object", lambda request: request.reply(INFO))
    assert client.call(STAT) == INFO


def test_unknown_fields_and_errors_of_a_newer_kernel_are_read(connect: Any, fake: Any) -> None:
    fake.on("stat_object", lambda request: request.reply({**vars_of(INFO), "news": 1}))
    client = connect()
    assert client.call(STAT) == INFO
    fake.on("stat_object", lambda request: request.reply({"id": 3}))
    with pytest.raises(LlmosError, match="different versions"):
        client.call(STAT)


def vars_of(info: ObjectInfo) -> dict[str, Any]:
    return {"id": info.id, "kind": info.kind, "name": info.name, "state": info.state}


def test_a_message_that_is_none_ends_the_session_with_an_error(connect: Any, fake: Any) -> None:
    fake.on("stat_object", lambda request: request.raw(b"\xc1", b""))
    client = connect()
    with pytest.raises(PeerGone, match="not understood"):
        client.call(STAT)


def test_progress_is_told_before_the_result(connect: Any, fake: Any) -> None:
    def load(request: Any) -> None:
        for done in (1, 2):
            request.progress(done, total=2)
        request.reply([])

    fake.on("list_dir", load)
    seen: list[tuple[int, int]] = []
    connect().call(calls.ListDir(path="/"), on_progress=lambda p: seen.append((p.done, p.total)))
    assert seen == [(1, 2), (2, 2)]


def test_a_timeout_is_the_deadline_of_the_call(connect: Any, fake: Any) -> None:
    fake.on("stat_object", lambda request: request.fail(TimedOut("the deadline passed")))
    with pytest.raises(TimedOut):
        connect().call(STAT, timeout=5)
    assert isinstance(fake.calls.get().body["deadline"], int)


def test_a_kernel_that_does_not_answer_in_time_is_not_waited_for(connect: Any, fake: Any) -> None:
    client = connect()
    with pytest.raises(TimedOut, match="no answer until the deadline"):
        client.call(STAT, timeout=-0.4)
    late = fake.calls.get()
    assert fake.cancels.get() == late.number
    fake.on("stat_object", lambda request: (late.reply(None), request.reply(INFO)))
    assert client.call(STAT) == INFO


def test_what_is_too_large_is_refused_before_it_is_sent(connect: Any, fake: Any) -> None:
    client = connect()
    with pytest.raises(TooLarge, match="limit"):
        client.call(calls.Infer(model=Handle(3), input=Text(text="x" * (9 << 20))))
    assert fake.calls.empty()
    fake.on("stat_object", lambda request: request.reply(INFO))
    assert client.call(STAT) == INFO


# ---- streams


def test_a_stream_gives_its_items_and_then_its_result(connect: Any, fake: Any) -> None:
    def stream(request: Any) -> None:
        request.chunk({"text": "a"}, {"text": "b"})
        request.chunk({"text": "c"})
        request.end(inference("abc"))

    fake.on("infer_stream", stream)
    reader = connect().stream(STREAM)
    assert [chunk.text for chunk in reader] == ["a", "b", "c"]
    assert reader.result.text == "abc"
    assert list(reader) == []


def test_the_result_can_be_had_without_reading_the_items(connect: Any, fake: Any) -> None:
    def stream(request: Any) -> None:
        request.chunk({"text": "a"})
        request.end(inference("a"))

    fake.on("infer_stream", stream)
    assert connect().stream(STREAM).result.text == "a"


def test_credit_is_granted_as_items_are_read(connect: Any, fake: Any) -> None:
    total = 21

    def stream(request: Any) -> None:
        request.chunk(*({"text": str(n)} for n in range(4)))

    fake.on("infer_stream", stream)
    fake.on("stat_object", lambda request: request.reply(INFO))
    client = connect()
    reader = client.stream(STREAM)
    read = [next(reader).text for _ in range(4)]
    client.call(STAT)
    assert fake.credits == [2, 2]
    request = fake.calls.get()
    request.chunk(*({"text": str(n)} for n in range(4, total)))
    request.end(inference("x"))
    assert read + [chunk.text for chunk in reader] == [str(n) for n in range(total)]


def test_one_frame_may_carry_chunks_of_several_streams(connect: Any, fake: Any) -> None:
    client = connect()
    readers = [client.stream(STREAM), client.stream(STREAM)]
    one, two = fake.calls.get(), fake.calls.get()
    items = [[two.number, {"text": "x"}], [one.number, {"text": "y"}], [99, {"text": "nobody's"}]]
    one.raw(*wire.pack(MessageKind.CHUNK, 0, "", {"items": items}))
    one.end(inference("y"))
    two.end(inference("x"))
    assert [[chunk.text for chunk in reader] for reader in readers] == [["y"], ["x"]]


def test_a_stream_that_fails_gives_what_came_before(connect: Any, fake: Any) -> None:
    def stream(request: Any) -> None:
        request.chunk({"text": "a"})
        request.fail(PeerGone("the driver ended", tokens_done=1))

    fake.on("infer_stream", stream)
    reader = connect().stream(STREAM)
    assert next(reader).text == "a"
    with pytest.raises(PeerGone) as caught:
        next(reader)
    assert caught.value.tokens_done == 1
    assert list(reader) == []
    with pytest.raises(PeerGone):
        _ = reader.result


def test_a_cancelled_stream_ends_with_what_it_has(connect: Any, fake: Any) -> None:
    fake.on("infer_stream", lambda request: request.chunk({"text": "a"}))
    fake.on("cancel", lambda request: request.end(inference("a")))
    reader = connect().stream(STREAM)
    assert next(reader).text == "a"
    reader.cancel()
    assert list(reader) == []
    assert reader.result.text == "a"


def test_leaving_the_block_of_a_stream_cancels_it(connect: Any, fake: Any) -> None:
    fake.on("infer_stream", lambda request: request.chunk({"text": "a"}))
    fake.on("cancel", lambda request: request.end(inference("a")))
    with connect().stream(STREAM) as reader:
        next(reader)
    assert fake.cancels.get() == fake.calls.get().number


def test_dropping_a_stream_cancels_it(connect: Any, fake: Any) -> None:
    fake.on("infer_stream", lambda request: request.chunk({"text": "a"}))
    fake.on("stat_object", lambda request: request.reply(INFO))
    client = connect()
    for _ in client.stream(STREAM):
        break
    client.call(STAT)
    assert fake.cancels.get() == fake.calls.get().number


# ---- connections


def test_without_a_kernel_the_error_says_where_it_looked(connect: Any, folder: Path) -> None:
    with pytest.raises(NoKernel, match=f"no kernel answers at ipc://{folder}/none.*llmos serve"):
        connect(address=f"ipc://{folder}/none")


def test_a_path_too_long_for_a_socket_is_named(connect: Any, folder: Path) -> None:
    with pytest.raises(NoKernel, match="longer than"):
        connect(address=f"ipc://{folder}/{'x' * 120}")


def test_a_refused_hello_is_raised(connect: Any, fake: Any) -> None:
    fake.on("hello", lambda request: request.fail(BadHandle("not you")))
    with pytest.raises(BadHandle, match="not you"):
        connect()


def restart(fake: Any, forget: bool = True) -> None:
    fake.stop()
    if forget:
        fake.forget()
    fake.start()


def test_when_the_kernel_is_gone_the_call_fails_and_does_not_hang(connect: Any, fake: Any) -> None:
    fake.on("stat_object", lambda request: request.fake.post(lambda _: "stop"))
    client = connect(patience=0.2)
    with pytest.raises(PeerGone, match="no new one: no kernel answers"):
        client.call(STAT)
    with pytest.raises(PeerGone, match="no kernel answers"):
        client.call(STAT)
    with pytest.raises(NoKernel):
        client.renew()


def test_a_new_kernel_is_a_new_session_and_the_old_handles_are_never_used(connect: Any, fake: Any) -> None:
    client = connect()
    session = client.welcome.session
    restart(fake)
    fake.on("stat_object", lambda request: request.reply(INFO))
    with pytest.raises(PeerGone, match=f"session {session} and all its handles are gone"):
        client.call(STAT)
    with pytest.raises(PeerGone):
        client.call(STAT)
    assert fake.calls.empty()
    client.renew()
    assert client.welcome.session != session
    assert client.call(STAT) == INFO


def test_a_session_that_is_taken_up_again_repeats_what_may_be_repeated(connect: Any, fake: Any) -> None:
    lost = threading.Event()

    def once(request: Any) -> None:
        if lost.is_set():
            request.reply([])
        else:
            lost.set()
            request.fake.post(lambda _: "stop")

    fake.on("list_dir", once)
    client = connect()
    session = client.welcome.session
    again = threading.Thread(target=lambda: (lost.wait(10), fake.stop(), fake.start()))
    again.start()
    assert client.call(calls.ListDir(path="/")) == []
    again.join()
    assert client.welcome.session == session
    assert fake.hellos[-1]["resume"] == "token1"
    first, second = fake.calls.get(), fake.calls.get()
    assert first.number != second.number


def test_what_changes_something_is_repeated_with_the_same_key(connect: Any, fake: Any) -> None:
    lost = threading.Event()

    def once(request: Any) -> None:
        if lost.is_set():
            request.reply({})
        else:
            lost.set()
            request.fake.post(lambda _: "stop")

    fake.on("remove_path", once)
    client = connect()
    again = threading.Thread(target=lambda: (lost.wait(10), fake.stop(), fake.start()))
    again.start()
    client.call(calls.RemovePath(path="/models/x"))
    again.join()
    first, second = fake.calls.get(), fake.calls.get()
    assert first.body["key"] == second.body["key"] != ""


def test_a_request_is_repeated_once_only(connect: Any, fake: Any) -> None:
    downs: list[int] = []
    down = threading.Semaphore(0)

    def always(request: Any) -> None:
        downs.append(request.number)
        request.fake.post(lambda _: "stop")
        down.release()

    fake.on("list_dir", always)
    client = connect()

    def restarts() -> None:
        for _ in range(2):
            down.acquire(timeout=10)
            fake.stop()
            fake.start()

    again = threading.Thread(target=restarts)
    again.start()
    with pytest.raises(PeerGone, match="not known"):
        client.call(calls.ListDir(path="/"))
    again.join()
    assert len(downs) == 2


def test_a_stream_that_has_delivered_is_not_repeated(connect: Any, fake: Any) -> None:
    fake.on("infer_stream", lambda request: request.chunk({"text": "a"}))
    client = connect()
    reader = client.stream(STREAM)
    assert next(reader).text == "a"
    restart(fake, forget=False)
    with pytest.raises(PeerGone, match="not known"):
        next(reader)
    fake.on("stat_object", lambda request: request.reply(INFO))
    assert client.call(STAT) == INFO


def test_an_answer_sent_just_before_the_end_still_arrives(connect: Any, fake: Any) -> None:
    def answer(request: Any) -> None:
        request.reply(INFO)
        request.fake.post(lambda _: "stop")

    fake.on("stat_object", answer)
    assert connect(patience=0.1).call(STAT) == INFO


def test_closing_ends_the_session_and_later_calls(connect: Any, fake: Any) -> None:
    client = connect()
    client.close() if not hasattr(client, "do") else client.do(client.client.close())
    assert fake.calls.get().body["handle"] == 1
    with pytest.raises(PeerGone, match="closed"):
        client.call(STAT)


# ---- large bytes


def test_large_bytes_go_through_a_buffer_and_come_back_from_one(connect: Any, fake: Any, folder: Path) -> None:
    path = folder / "buffer"
    content = bytes(range(256)) * 1024
    path.write_bytes(bytes(len(content)))
    buffer = {"handle": 7, "id": "b1", "name": "b1", "path": str(path), "bytes": len(content)}
    written: list[bytes] = []

    def write(request: Any) -> None:
        written.append(path.read_bytes())
        assert request.body["data"] == {"type": "buffer", "buffer": 7, "offset": 0, "length": len(content)}
        request.reply({"count": len(content)})

    closed: list[int] = []
    fake.on("close_handle", lambda request: (closed.append(request.body["handle"]), request.reply({})))
    fake.on("alloc_buffer", lambda request: request.reply(buffer))
    fake.on("write_file", write)
    data = Data(data=BufferOut(buffer=Handle(7), length=len(content)), eof=True, path=str(path))
    fake.on("read_file", lambda request: request.reply(data))
    client = connect()
    assert client.call(calls.WriteFile(file=Handle(5), offset=0, data=content)).count == len(content)
    assert written == [content] and closed == [7]
    read = client.call(calls.ReadFile(file=Handle(5), offset=0, count=1 << 20))
    assert read.data == content and closed == [7, 7]


def test_a_buffer_is_freed_when_the_call_fails(connect: Any, fake: Any, folder: Path) -> None:
    path = folder / "buffer"
    path.write_bytes(bytes(1 << 17))
    closed: list[int] = []
    fake.on("close_handle", lambda request: (closed.append(request.body["handle"]), request.reply({})))
    buffer = {"handle": 7, "id": "b1", "name": "b1", "path": str(path), "bytes": 1 << 17}
    fake.on("alloc_buffer", lambda request: request.reply(buffer))
    fake.on("write_file", lambda request: request.fail(BadHandle("no such file")))
    client = connect()
    with pytest.raises(BadHandle, match="no such file"):
        client.call(calls.WriteFile(file=Handle(5), offset=0, data=bytes(1 << 17)))
    assert closed == [7]


def test_small_bytes_and_texts_stay_in_the_message(connect: Any, fake: Any) -> None:
    fake.on("write_file", lambda request: request.reply({"count": 3}))
    client = connect()
    client.call(calls.WriteFile(file=Handle(5), offset=0, data=b"abc"))
    assert fake.calls.get().body["data"] == b"abc"
    fake.on("infer", lambda request: request.reply(inference("x")))
    assert client.call(calls.Infer(model=Handle(3), input=Tokens(ids=[1]))).text == "x"
    assert fake.calls.get().body["input"] == {"type": "tokens", "ids": [1]}


def test_a_flow_gets_results_and_errors_where_it_asks(connect: Any, fake: Any) -> None:
    fake.on("stat_path", lambda request: request.reply(Entry(path=request.body["path"], kind="file")))
    fake.on("list_dir", lambda request: request.fail(BadHandle("no")))

    def flow() -> Any:
        entry = yield from ask(calls.StatPath(path="/a"))
        try:
            yield from ask(calls.ListDir(path="/"))
        except BadHandle as error:
            return entry.path, str(error)

    assert connect().run(flow()) == ("/a", "no")

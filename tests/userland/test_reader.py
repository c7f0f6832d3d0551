"""Streams and answers that are still to come: what is not already shown with both clients in test_client."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from llmos.syscalls import calls
from llmos.syscalls.types import Handle, Image, ObjectInfo, Parts, Text
from llmos.userland.client import Client

END = {"id": "r1", "task": "t", "model_version": "v", "choices": []}


def test_a_stream_frees_the_buffers_of_its_input_when_it_ends(fake: Any, folder: Path) -> None:
    (folder / "b").write_bytes(bytes(1 << 17))
    buffer = {"handle": 7, "id": "b", "name": "b", "path": str(folder / "b"), "bytes": 1 << 17}
    closed: list[int] = []
    fake.on("close_handle", lambda request: (closed.append(request.body["handle"]), request.reply({})))
    fake.on("alloc_buffer", lambda request: request.reply(buffer))
    fake.on("infer_stream", lambda request: request.end(END))
    info = ObjectInfo(id="x", kind="system", name="x", state="ok")
    fake.on("stat_object", lambda request: request.reply(info))
    given = Parts(parts=[Image(data=bytes(1 << 17))])
    with Client(fake.address) as client:
        stream = client.stream(calls.InferStream(model=Handle(3), input=given))
        assert list(stream) == [] and stream.request
        client.call(calls.StatObject(handle=Handle(2)))
        assert closed == [7]


def test_the_garbage_collector_may_end_a_stream_anywhere(fake: Any) -> None:
    """Also inside a call of the same thread: the lock is reentrant and nothing waits."""
    fake.on("infer_stream", lambda request: request.chunk({"text": "a"}))
    fake.on("list_dir", lambda request: request.reply([]))
    call = calls.InferStream(model=Handle(3), input=Text(text="a"))
    with Client(fake.address) as client:
        readers: list[Any] = [client.stream(call) for _ in range(3)]
        readers.append(readers)
        del readers
        pump = client._pump
        with pump._lock:
            gc.collect()
        client.call(calls.ListDir(path="/"))
        assert sorted(fake.cancels.get() for _ in range(3)) == [2, 3, 4]

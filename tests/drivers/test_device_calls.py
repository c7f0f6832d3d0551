"""The kernel's calls to a device, through a real host."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
from llmos.syscalls.wire import MessageKind

LOCATED = {"path": "/models/m", "version": "v2", "files": []}
SLOW = {"manifest": {"null": {"faults": ["slow 400"]}}}


def weights(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {row["owner"]: row["allocator"] for row in rows if row["what"] == "weights"}


def text(answer: Any) -> str:
    return str(answer.body["value"]["choices"][0]["text"])


# ---- models


def test_a_plan_takes_no_memory(null: Any) -> None:
    rows = null.call("plan", {"model": {**LOCATED, "manifest": {"null": {"bytes": 500}}}})["rows"]
    assert [(r["device"], r["what"], r["predicted"], r["allocator"]) for r in rows] == [("null0", "weights", 500, 0)]
    assert weights(null.call("stats")["memory"]) == {"m": 1 << 20}


def test_a_model_is_loaded_used_and_unloaded(kernel: Any) -> None:
    kernel.start()
    loaded = kernel.load(manifest={"null": {"bytes": 5000}, "context": 99})
    assert (loaded["architecture"], loaded["context"], loaded["chat"]) == ("Echo", 99, True)
    assert loaded["rung_reasons"][0]["text"]
    assert weights(kernel.until(MessageKind.EVENT, name="memory").body["rows"]) == {"m": 5000}
    value = kernel.answer(kernel.submit("hello")).body["value"]
    assert (value["model_version"], value["choices"][0]["text"]) == ("v1", "hello")
    assert kernel.call("unload", {"id": "m"}) == {"bytes": 5000}
    assert kernel.until(MessageKind.EVENT, name="memory").body["rows"] == []
    assert kernel.answer(kernel.submit("hello", "r2")).body["name"] == "NotFound"
    assert kernel.call("unload", {"id": "m"})["name"] == "NotFound"


def test_what_a_device_cannot_tell_is_said(null: Any) -> None:
    error = null.call("inspect", {"topic": "ops"})
    assert (error["name"], "'ops'" in error["message"]) == ("NotSupported", True), error


def test_an_id_is_loaded_once(null: Any) -> None:
    assert null.call("load", {"id": "m", "model": LOCATED})["name"] == "Exists"


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(null: Any) -> None:
    error = null.load("big", {"null": {"bytes": 1 << 40}})
    assert error["name"] == "NoDeviceMemory"
    assert (error["fields"]["needed"], error["fields"]["free"]) == (1 << 40, (1 << 30) - (1 << 20))
    assert error["fields"]["by_whom"] == "m"
    assert null.answer(null.submit("still here")).kind is MessageKind.END


def test_sleeping_frees_the_bytes_and_waking_takes_them_again(null: Any) -> None:
    null.call("sleep", {"id": "m"})
    assert null.until(MessageKind.EVENT, name="memory").body["rows"] == []
    assert null.answer(null.submit("x")).body["name"] == "BadState"
    assert null.call("sleep", {"id": "m"})["name"] == "BadState"
    number = null.send("wake", {"id": "m"})
    told = null.until(MessageKind.PROGRESS)
    assert (told.request, told.body["done"], told.body["unit"]) == (number, 1 << 20, "bytes")
    assert weights(null.answer(number).body["value"]["rows"]) == {"m": 1 << 20}
    assert null.answer(null.submit("x", "r2")).kind is MessageKind.END


def test_a_swap_serves_the_new_version_and_ends_the_old_one_when_unused(null: Any) -> None:
    old = null.submit("!late 300; running", "old")
    null.call("swap", {"id": "m", "model": {**LOCATED, "manifest": {"null": {"bytes": 7}}}})
    rows = null.until(MessageKind.EVENT, name="memory").body["rows"]
    assert sorted((row["owner"], row["allocator"]) for row in rows) == [("m", 7), ("m", 1 << 20)]
    new = null.answer(null.submit("hi", "new"))
    assert new.body["value"]["model_version"] == "v2"
    assert null.answer(old).body["value"]["model_version"] == "v1"
    null.call("plan", {"model": LOCATED})
    assert null.call("unload", {"id": "m"}) == {"bytes": 7}
    assert null.until(MessageKind.EVENT, name="memory").body["rows"] == []


def test_a_model_with_adapters_is_not_swapped(null: Any) -> None:
    null.call("adapter", {"id": "a", "base": "m", "action": "add", "model": LOCATED})
    null.call("load", {"id": "b", "model": LOCATED, "base": "m"})
    error = null.call("swap", {"id": "m", "model": LOCATED})
    assert error["name"] == "Busy" and "adapters: a, b;" in error["message"]
    for adapter in ("a", "b"):
        null.call("unload", {"id": adapter})
    assert null.call("swap", {"id": "m", "model": LOCATED})["rows"][0]["owner"] == "m"


def test_a_swap_that_fails_changes_nothing(null: Any) -> None:
    wrong = {**LOCATED, "manifest": {"null": {"bytes": 1 << 40}}}
    assert null.call("swap", {"id": "m", "model": wrong})["name"] == "NoDeviceMemory"
    assert null.answer(null.submit("hi")).body["value"]["model_version"] == "v1"


def test_an_adapter_is_a_model_for_its_base(null: Any) -> None:
    assert null.call("adapter", {"id": "a", "base": "nobody", "action": "add", "model": LOCATED})["name"] == "NotFound"
    loaded = null.call("adapter", {"id": "a", "base": "m", "action": "add", "model": LOCATED})
    assert weights(loaded["rows"]) == {"a": 1 << 20}
    assert weights(null.call("adapter", {"id": "a", "base": "m", "action": "drop"})["rows"]) == {"m": 1 << 20}
    assert null.call("adapter", {"id": "a", "base": "m", "action": "drop"})["name"] == "NotFound"
    for wrong in ({"action": "paint"}, {"action": "add"}):
        assert null.call("adapter", {"id": "b", "base": "m", **wrong})["name"] == "BadArgument"
    assert null.call("load", {"id": "c", "base": "m", "model": LOCATED})["architecture"] == "Echo"
    assert null.call("load", {"id": "d", "base": "nobody", "model": LOCATED})["name"] == "NotFound"


def test_a_load_can_be_cancelled(kernel: Any) -> None:
    kernel.start()
    number = kernel.send("load", {"id": "m", "model": {**LOCATED, **SLOW}})
    kernel.until(MessageKind.PROGRESS)
    assert kernel.call("cancel", {"id": "m"}) == {}
    assert kernel.answer(number).body["name"] == "Cancelled"
    assert kernel.call("stats")["memory"] == []
    assert kernel.load()["architecture"] == "Echo"


def test_unloading_ends_what_runs(null: Any) -> None:
    number = null.submit("!slow 20; x", sampling={"max_tokens": 500, "ignore_eos": True})
    null.call("unload", {"id": "m"})
    answer = null.answer(number)
    assert answer.kind is MessageKind.END and answer.body["value"]["choices"][0]["reason"] == "cancelled"


def test_what_is_not_offered_yet_says_so(null: Any) -> None:
    error = null.call("transform", {"id": "t", "sources": [], "recipe": {"kind": "merge"}, "folder": "/x"})
    assert error["name"] == "NotSupported" and error["fields"]["why"]


# ---- requests


def test_a_stream_is_the_whole_and_its_chunks_come_first(null: Any) -> None:
    number = null.submit("žluťoučký kůň 🐎!", stream=True)
    answer = null.answer(number)
    chunks = [item for m in null.log if m.kind is MessageKind.CHUNK for n, item in m.body["items"] if n == number]
    assert "".join(chunk["text"] for chunk in chunks) == text(answer) == "žluťoučký kůň 🐎!"
    tokens = [token for chunk in chunks for token in chunk["tokens"]]
    assert tokens == answer.body["value"]["choices"][0]["tokens"]
    assert null.log[-1] is answer


def test_one_frame_carries_a_step_of_all_requests(null: Any) -> None:
    null.submit("!slow 100; start", "first", stream=True)
    numbers = [null.submit("hello", f"r{i}", stream=True) for i in range(4)]
    for number in numbers:
        null.answer(number)
    frames = [m for m in null.log if m.kind is MessageKind.CHUNK]
    assert max(len({number for number, _item in frame.body["items"]}) for frame in frames) == 5


def test_a_request_that_does_not_stream_sends_no_chunk(null: Any) -> None:
    assert text(null.answer(null.submit("hello"))) == "hello"
    assert not [m for m in null.log if m.kind is MessageKind.CHUNK]


@pytest.mark.parametrize("slow", ["", "!slow 20; "])
def test_a_cancelled_request_ends_with_what_it_has(null: Any, slow: str) -> None:
    """With slow steps the I/O thread takes the cancel, else the work thread itself."""
    number = null.submit(f"{slow}ab", stream=True, sampling={"max_tokens": 4000, "ignore_eos": True})
    null.until(MessageKind.CHUNK)
    null.call("cancel", {"id": "r"})
    answer = null.answer(number)
    assert answer.body["value"]["choices"][0]["reason"] == "cancelled"
    assert 0 < len(text(answer)) < 4000


def test_a_request_cancelled_before_it_is_begun_gets_an_error(null: Any) -> None:
    null.submit("!slow 400; x", "busy", sampling={"max_tokens": 1})
    null.until_step(4)
    number = null.submit("hello", "waiting")
    null.call("cancel", {"id": "waiting"})
    assert null.answer(number).body["name"] == "Cancelled"


def test_cancels_that_find_nothing_are_forgotten_in_time(null: Any) -> None:
    for i in range(1500):
        null.send("cancel", {"id": f"nobody{i}"})
    null.answer(null.submit("x"))
    assert text(null.answer(null.submit("hello", "nobody3"))) == "hello"
    assert null.answer(null.submit("hello", "nobody1499")).body["name"] == "Cancelled"


def test_an_id_runs_once_at_a_time(null: Any) -> None:
    null.submit("!slow 100; x")
    assert null.answer(null.submit("hello")).body["name"] == "Exists"


def test_a_refused_request_leaves_nothing_behind(null: Any) -> None:
    assert null.answer(null.submit("x", sampling={"max_tokens": -1})).body["name"] == "BadArgument"
    assert null.answer(null.submit("!oom @submit; x")).body["name"] == "NoDeviceMemory"
    assert null.answer(null.submit("!oom; x")).body["name"] == "NoDeviceMemory"
    assert text(null.answer(null.submit("fine"))) == "fine"


def test_what_a_request_took_is_reported_when_it_has_ended(null: Any) -> None:
    number = null.send(
        "submit", {"work": {"id": "r", "model": "m", "input": {"type": "text", "text": "hello"}, "tenant": "acme"},
                   "work_class": "batch"},
    )  # fmt: skip
    null.answer(number)
    kinds = [(m.kind, m.name) for m in null.log]
    assert kinds.index((MessageKind.EVENT, "spent")) < kinds.index((MessageKind.END, "")), "accounts first"
    (spent,) = [event.body for event in null.events("spent")]
    assert (spent["work_class"], spent["tenant"], spent["tokens"]) == ("batch", "acme", 11)
    assert (spent["model"], spent["request"]) == ("m", "r") and spent["device_ns"] > 0


def test_what_a_request_takes_is_reported_while_it_runs(null: Any) -> None:
    number = null.submit("!slow 100; x", "long", sampling={"max_tokens": 12, "ignore_eos": True})
    value = null.answer(number).body["value"]
    told = [event.body for event in null.events("spent")]
    assert len(told) >= 3 and {spent["request"] for spent in told} == {"long"}
    assert sum(spent["device_ns"] for spent in told) == value["usage"]["device_ns"]
    assert sum(spent["tokens"] for spent in told) == value["usage"]["prompt_tokens"] + value["usage"]["new_tokens"]


def test_what_a_failed_request_took_counts_too(host_of: Any, package: Any) -> None:
    twist = "events = [FailedEvent(e.request, e.error, device_ns=77) for e in events]"
    source = LATE.replace("ChunkEvent, DoneEvent", "FailedEvent").format(twist=twist)
    kernel = host_of("late0", package("late0", source).environ)
    kernel.start()
    kernel.load()
    assert kernel.answer(kernel.submit("!oom; x")).body["name"] == "NoDeviceMemory"
    assert [event.body["device_ns"] for event in kernel.events("spent")] == [77]


def test_numbers_are_reported_now_and_then(null: Any) -> None:
    null.answer(null.submit("hello"))
    values = null.events("metric")[0].body["values"]
    assert values["requests"] == 1 and values["models"] == 1
    usage = [event.body for event in null.events("metric") if "cache_usage" in event.body["values"]]
    assert usage and 0 <= usage[0]["values"]["cache_usage"] <= 1 and usage[0]["about"] != "null0"
    stats = null.call("stats")["values"]
    assert (stats["steps"], stats["tokens"], stats["running"]) == (6, 6, 0)


def test_chat_and_token_ids_are_taken(null: Any) -> None:
    chat = {"type": "chat", "messages": [{"role": "user", "content": "hello"}]}
    assert text(null.answer(null.submit("", "chat", input=chat))) == "hello"
    tokens = {"type": "tokens", "ids": [104, 105]}
    assert text(null.answer(null.submit("", "tokens", input=tokens))) == "hi"


def test_an_embedding_comes_back_as_float32(null: Any) -> None:
    value = null.answer(null.submit("hello", task="feature-extraction", embed={"normalize": False})).body["value"]
    tensor = value["result"]["tensor"]
    assert (tensor["dtype"], tensor["shape"], len(tensor["data"])) == ("float32", [1, 64], 256)
    assert value["result"]["truncated"] == [False]


# ---- tensors


def tensors(**named: Any) -> dict[str, Any]:
    return {"type": "tensors", "named": named}


def test_tensors_in_the_message_come_back(null: Any) -> None:
    given = tensors(x={"dtype": "uint8", "shape": [2, 2], "data": b"abcd"})
    out = null.answer(null.submit("", input=given)).body["value"]["result"]["named"]
    assert out["x"] == {"dtype": "uint8", "shape": [2, 2], "data": b"abcd"}
    assert int.from_bytes(out["x.crc32"]["data"], "little") == zlib.crc32(b"abcd")


def test_tensors_in_a_buffer_are_read_where_they_are(null: Any, folder: Path) -> None:
    path = folder / "buffer"
    content = bytes(range(256)) * 1024
    path.write_bytes(b"----" + content)
    given = tensors(x={"dtype": "float32", "shape": [256, 256], "data": {"type": "buffer", "buffer": 7, "offset": 4,
                                                                        "length": len(content)}})  # fmt: skip
    buffers = {"7": {"path": str(path), "bytes": len(content) + 4}}
    for task, name, expected in (("echo", "x.crc32", zlib.crc32(content)), ("copy", "x.bytes", len(content))):
        number = null.submit("", task, input=given, buffers=buffers, task=task)
        out = null.answer(number).body["value"]["result"]["named"]
        assert int.from_bytes(out[name]["data"], "little") == expected and "x" not in out
    maps = Path(f"/proc/{null.process.pid}/maps").read_text()
    assert sum(str(path) in line for line in maps.splitlines()) == 1
    path.unlink()
    null.until(MessageKind.BEAT)
    null.until(MessageKind.BEAT)
    assert str(path) not in Path(f"/proc/{null.process.pid}/maps").read_text()


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "complex", "shape": [1], "data": b"x"},
        {"dtype": "float32", "shape": [2], "data": b"1234"},
        {"dtype": "uint8", "shape": [1], "data": {"type": "buffer", "buffer": 9, "offset": 0, "length": 1}},
    ],
)
def test_tensors_that_make_no_sense_are_refused(null: Any, tensor: dict[str, Any]) -> None:
    assert null.answer(null.submit("", input=tensors(x=tensor))).body["name"] == "BadArgument"


def test_media_are_not_taken_yet(null: Any) -> None:
    error = null.answer(null.submit("", input={"type": "parts", "parts": [{"type": "text", "text": "x"}]})).body
    assert error["name"] == "NotSupported" and error["fields"]["why"]


# ---- conversations


def test_a_conversation_is_kept_and_counted(null: Any) -> None:
    assert null.call("open_context", {"id": "c", "model": "m", "max_tokens": 100}) == {
        "tokens": 0, "max_tokens": 100, "bytes": 102400,
    }  # fmt: skip
    rows = null.until(MessageKind.EVENT, name="memory").body["rows"]
    assert [(r["what"], r["owner"], r["allocator"]) for r in rows[1:]] == [("kv", "c", 102400)]
    null.answer(null.submit("one", "r1", context="c"))
    usage = null.answer(null.submit("two", "r2", context="c")).body["value"]["usage"]
    assert (usage["cached_tokens"], usage["prompt_tokens"]) == (7, 10)
    assert null.call("open_context", {"id": "d", "model": "m", "parent": "c"})["tokens"] == 14
    assert null.call("drop_context", {"id": "c"}) == {"bytes": 102400}
    assert null.call("drop_context", {"id": "c"})["name"] == "NotFound"
    assert null.call("open_context", {"id": "e", "model": "nobody"})["name"] == "NotFound"


# ---- a driver that does not keep the contract

LATE = """
    from llmos.drivers.contract import ChunkEvent, DoneEvent
    from llmos.drivers.devices.null import NullDevice
    from llmos.drivers.hookspecs import hookimpl

    class Device(NullDevice):
        def step(self):
            events = list(super().step())
            {twist}
            return events

    @hookimpl
    def register_devices(register):
        register("late0", Device)
"""


@pytest.mark.parametrize("twist", ["events += events", "events.append(DoneEvent('nobody', 'x'))"])
def test_an_answer_to_nothing_is_dropped_and_reported(host_of: Any, package: Any, twist: str) -> None:
    kernel = host_of("late0", package("late0", LATE.format(twist=twist)).environ)
    kernel.start()
    kernel.load()
    numbers = [kernel.submit("hi", f"r{i}") for i in range(3)]
    for number in numbers:
        assert text(kernel.answer(number)) == "hi"
    kernel.call("stop")
    kernel.wait()
    faults = kernel.events("fault")
    assert faults and not any(fault.body["sticky"] for fault in faults)
    assert sorted(m.request for m in kernel.log if m.kind is MessageKind.END) == numbers


def test_chunks_that_nobody_asked_for_are_not_sent(host_of: Any, package: Any) -> None:
    """The kernel would take them for garbage."""
    twist = "events = [ChunkEvent(name, 'x', [1]) for name in self._jobs] + events"
    kernel = host_of("late0", package("late0", LATE.format(twist=twist)).environ)
    kernel.start()
    kernel.load()
    assert text(kernel.answer(kernel.submit("hi"))) == "hi"
    assert not [m for m in kernel.log if m.kind is MessageKind.CHUNK]


def test_a_request_that_a_driver_forgets_at_unload_is_answered(host_of: Any, package: Any) -> None:
    twist = "events = [e for e in events if e.request != 'lost']"
    kernel = host_of("late0", package("late0", LATE.format(twist=twist)).environ)
    kernel.start()
    kernel.load()
    number = kernel.submit("hi", "lost")
    kernel.call("unload", {"id": "m"})
    assert kernel.answer(number).body["name"] == "BadState"


def test_an_answer_that_cannot_be_sent_fails_its_own_request(host_of: Any, package: Any) -> None:
    twist = "events = [DoneEvent(e.request, object() if e.request == 'r' else 'x') for e in events]"
    kernel = host_of("late0", package("late0", LATE.format(twist=twist)).environ)
    kernel.start()
    kernel.load()
    error = kernel.answer(kernel.submit("x", "r")).body
    assert error["name"] == "DeviceFault" and "cannot be sent" in error["message"]
    assert kernel.answer(kernel.submit("x", "other")).body["value"]["task"] == "x"


def test_an_answer_too_large_for_a_message_is_an_error(host_of: Any, package: Any) -> None:
    width = "20_000 if e.request == 'r' else 2_097_100 if e.request == 'tight' else 3_000_000"
    twist = f"events = [DoneEvent(e.request, 'x', embeddings=[[0.5] * ({width})]) for e in events]"
    kernel = host_of("late0", package("late0", LATE.format(twist=twist)).environ)
    kernel.start()
    kernel.load()
    answer = kernel.answer(kernel.submit("x", "r", sampling={"max_tokens": 0}))
    assert len(answer.body["value"]["result"]["tensor"]["data"]) == 80_000
    for request in ("tight", "large"):
        error = kernel.answer(kernel.submit("x", request, sampling={"max_tokens": 0})).body
        assert error["name"] == "TooLarge" and error["fields"]["limit"] == 8 << 20
    assert error["fields"]["got"] == 12_000_000

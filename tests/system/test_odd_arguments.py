"""Arguments at the edge of what their types allow: a typed error or a sensible result, never the kernel's end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from llmos.syscalls.errors import BadArgument, LlmosError, NoDeviceMemory, NoResources, NotFound
from system.raw_client import RawClient

pytestmark = pytest.mark.usefixtures("footprint")

HUGE = 2**63 - 1


NO_TIME = [math.inf, -math.inf, math.nan, 1e300, -2.0]


@pytest.mark.parametrize("seconds", [*NO_TIME, 0.0])
def test_a_lease_for_no_time(shared: RawClient, seconds: float) -> None:
    error = shared.error("alloc_gpu", device=shared.grants["null0"], bytes=1, ttl_s=seconds)
    assert isinstance(error, BadArgument)
    assert error.name == "ttl_s"


def test_a_lease_for_an_instant(shared: RawClient) -> None:
    shared.call("alloc_gpu", device=shared.grants["null0"], bytes=1, ttl_s=1e-300)


@pytest.mark.parametrize("count", [HUGE, 2**64 - 1])
def test_more_bytes_than_there_are(shared: RawClient, count: int) -> None:
    assert isinstance(shared.error("alloc_gpu", device=shared.grants["null0"], bytes=count), NoDeviceMemory)
    assert isinstance(shared.error("alloc_buffer", system=shared.system, bytes=count), NoResources)


@pytest.mark.parametrize("seconds", [1e9, 0, -1, -0.5])
def test_keep_alive_of_any_length(shared: RawClient, seconds: float) -> None:
    model = shared.load("null", keep_alive=seconds)
    shared.call("control_object", handle=model, action="keep_alive", options={"seconds": seconds})
    assert shared.infer(model, "x")["choices"][0]["text"] == "x"
    if seconds == 0:
        with shared.watching("model") as events:
            while shared.call("stat_object", handle=model)["state"] != "asleep":
                seen = len(events.chunks)
                shared.until(lambda seen=seen: len(events.chunks) > seen)
    shared.call("unload_model", model=model)


@pytest.mark.parametrize("seconds", NO_TIME)
def test_times_that_are_none(shared: RawClient, seconds: float) -> None:
    driver = shared.driver("files")
    error = shared.error("control_object", handle=driver["handle"], action="stop", options={"drain_s": seconds})
    assert isinstance(error, BadArgument)
    model = shared.load("null")
    error = shared.error("control_object", handle=model, action="keep_alive", options={"seconds": seconds})
    assert isinstance(error, BadArgument)
    shared.call("unload_model", model=model)
    loading = shared.error("load_model", path="/models/null", options={"keep_alive": seconds})
    assert isinstance(loading, BadArgument)
    assert loading.name == "options.keep_alive"


@pytest.mark.parametrize("nice", [-HUGE, -21, 20, HUGE])
def test_a_priority_that_is_none(shared: RawClient, nice: int) -> None:
    task = shared.call("spawn_program", system=shared.system, argv=["sleep", "600"])["handle"]
    error = shared.error("control_object", handle=task, action="priority", options={"nice": nice})
    assert isinstance(error, BadArgument)
    shared.call("cancel_task", task=task, grace_s=0)


@pytest.mark.parametrize("limit", [-HUGE, -1, HUGE])
def test_a_device_limit_that_is_none(shared: RawClient, limit: int) -> None:
    free = shared.call("stat_object", handle=shared.grants["null0"])["fields"]["free"]
    answer = shared.wait(
        shared.send("control_object", handle=shared.grants["null0"], action="limit", options={"bytes": limit})
    )
    assert answer.error is None if limit > 0 else isinstance(answer.error, BadArgument)
    assert shared.call("stat_object", handle=shared.grants["null0"])["fields"]["free"] == free


@pytest.mark.parametrize(
    "argv", [[""], ["a\0b"], ["true", "a\0b"], ["true", "x" * 4_000_000], ["/etc/passwd"], ["/"], ["no-such-program"]]
)
def test_programs_that_cannot_be_started(shared: RawClient, argv: list[str]) -> None:
    error = shared.error("spawn_program", system=shared.system, argv=argv)
    assert isinstance(error, NotFound | BadArgument | NoResources)
    assert shared.call("list_objects", system=shared.system, kind="task", prefix="t-") is not None


def test_a_program_that_is_no_program(shared: RawClient, tmp_path: Any) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    before = len(shared.call("list_objects", system=shared.system, kind="task"))
    error = shared.error("spawn_program", system=shared.system, argv=[str(broken)])
    assert isinstance(error, NotFound | BadArgument)
    assert len(shared.call("list_objects", system=shared.system, kind="task")) == before


@pytest.mark.parametrize(("offset", "count"), [(HUGE, 10), (2**64 - 1, 10), (0, 1 << 30), (5, 0)])
def test_places_in_a_file_that_are_none(shared: RawClient, offset: int, count: int) -> None:
    for path in ("/sys/version", "/home/note"):
        if path == "/home/note":
            written = shared.call("open_file", path=path, mode="w")["handle"]
            shared.call("write_file", file=written, offset=0, data=b"note")
            shared.call("close_handle", handle=written)
        file = shared.call("open_file", path=path)["handle"]
        answer = shared.wait(shared.send("read_file", file=file, offset=offset, count=count))
        assert answer.error is None or isinstance(answer.error, LlmosError)
        shared.call("close_handle", handle=file)
    shared.call("remove_path", path="/home/note")


def test_writes_beyond_everything(shared: RawClient) -> None:
    file = shared.call("open_file", path="/home/far", mode="w")["handle"]
    for offset in (HUGE, 2**64 - 1):
        assert isinstance(shared.error("write_file", file=file, offset=offset, data=b"x"), LlmosError)
    shared.call("close_handle", handle=file)
    shared.call("remove_path", path="/home/far")


@pytest.mark.parametrize("deadline", [-(2**63), 0, 2**64 - 1])
def test_deadlines_of_any_time(shared: RawClient, deadline: int) -> None:
    answer = shared.wait(shared.send("stat_path", path="/home", deadline=deadline))
    assert (answer.error is None) == (deadline > 0)


def test_a_request_that_cancels_itself_ends(shared: RawClient) -> None:
    number = shared.send("watch_events", system=shared.system)
    shared.quiet()
    newest = max(shared.names("/proc/requests"), key=lambda name: int(name.rpartition("-")[2]))
    boot, last = newest.rpartition("-")[0], int(newest.rpartition("-")[2])
    sent = [shared.send("cancel_task", request=f"{boot}-{last + ahead}") for ahead in range(1, 40)]
    for one in sent:
        shared.wait(one)
    shared.cancel(number)
    shared.wait(number)


@pytest.mark.parametrize("after", ["", "/", "/zzz", "no path", "\0", "/home/\x7f"])
def test_pages_of_folders_from_anywhere(shared: RawClient, after: str) -> None:
    for folder in ("/", "/home", "/proc", "/models"):
        answer = shared.wait(shared.send("list_dir", path=folder, after=after))
        assert answer.error is None or isinstance(answer.error, LlmosError)


@pytest.mark.parametrize("name", ["", "ä" * 10, "a.b", "7"])
def test_names_that_are_one_word(shared: RawClient, name: str) -> None:
    model = shared.load("null", name=name)
    assert shared.call("stat_object", handle=model)["name"] == (name or "null")
    shared.call("unload_model", model=model)


@pytest.mark.parametrize("name", [" ", "\u202e", "a/b", "..", "null\n", "a b"])
def test_names_that_are_none(shared: RawClient, name: str) -> None:
    error = shared.error("load_model", path="/models/null", device=shared.grants["null0"], options={"name": name})
    assert isinstance(error, BadArgument) and (error.name, error.got) == ("name", name)


def test_a_priority_beyond_bounds_names_itself(shared: RawClient) -> None:
    error = shared.error("stat_object", handle=shared.system, priority=1001)
    assert isinstance(error, BadArgument)
    assert error.name == "priority"

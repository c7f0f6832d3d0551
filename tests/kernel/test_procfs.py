"""/dev, /proc and /sys through the calls that read them."""

from __future__ import annotations

import json

import pytest
from scripted import Inside, Program

from llmos.syscalls.errors import NotDirectory, NotFound


def document(program: Program, path: str) -> dict:
    value: dict = json.loads(program.read(path))
    return value


def test_devices_are_named_as_they_are(program: Program) -> None:
    assert program.names("/dev") == ["null0"]
    assert document(program, "/dev/null0")["fields"]["memory_bytes"] == 1 << 20


def test_objects_are_found_by_kind_and_id(kernel: Inside, program: Program) -> None:
    model = program.call("load_model", path="/models/tiny")
    assert program.names("/proc") == [
        "contexts", "drivers", "leases", "models", "requests", "services", "sessions", "tasks"
    ]  # fmt: skip
    shown = document(program, f"/proc/models/{model['id']}")
    assert shown["name"] == "tiny" and shown["bytes"] > 0 and shown["fields"]["waiting"] == 0
    device = document(program, "/dev/null0")
    assert device["fields"]["free"] == device["bytes"] - shown["bytes"]
    assert program.names("/proc/drivers") == ["files", "models", "null0"]
    assert document(program, f"/proc/sessions/{program.session}")["fields"]["program"] == "test"


def test_requests_say_why_they_wait(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    numbers = [program.start(model, "x") for _ in range(3)]
    found = [document(program, f"/proc/requests/{id}") for id in program.names("/proc/requests")[:3]]
    assert [one["state"] for one in found] == ["running", "running", "waiting"]
    assert found[2]["reasons"][-1]["code"] == "request.waits"
    for number in numbers:
        kernel.null.release("submit")
        program.wait(number)


def test_the_system_shows_itself(kernel: Inside, program: Program) -> None:
    assert program.names("/sys") == [
        "advice", "alerts", "codes", "journal", "limits", "memory", "metrics", "queues", "runs", "version",
    ]  # fmt: skip
    assert document(program, "/sys/version")["pid"] == kernel.kernel.pid
    assert document(program, "/sys/limits")["drain_s"] == 20
    assert [(row["device"], row["what"]) for row in document(program, "/sys/memory")] == [("host", "reserve")]
    assert b"llmos_calls_total" in program.read("/sys/metrics")
    program.load("tiny")
    assert b'llmos_models{state="awake"} 1' in program.read("/sys/metrics")
    assert b"opened s-" in program.read("/sys/journal")


@pytest.mark.parametrize("path", ["/dev/none", "/proc/none", "/sys/version/deeper", "/proc/models/m-1"])
def test_what_is_not_there_is_not_found(program: Program, path: str) -> None:
    assert isinstance(program.error("stat_path", path=path), NotFound)
    assert isinstance(program.error("open_file", path=path), NotFound)


def test_files_and_folders_are_different(program: Program) -> None:
    assert program.call("stat_path", path="/sys")["fields"] == {"entries": 10}
    entry = program.call("stat_path", path="/sys/version")
    assert (entry["path"], entry["kind"]) == ("/sys/version", "file") and entry["mtime"] > 0
    assert isinstance(program.error("list_dir", path="/sys/version"), NotDirectory)
    assert isinstance(program.error("open_file", path="/proc/models"), NotDirectory)

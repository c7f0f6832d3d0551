"""Idle models make room, with real models of the null device, which has 1 GiB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from system.kernel_process import running
from system.model_folder import write_model
from system.raw_client import RawClient

from llmos.syscalls.errors import NoDeviceMemory

MIB = 1 << 20


@pytest.fixture
def client(folder: Path) -> Iterator[RawClient]:
    for name in ("one", "two", "three"):
        write_model(folder / "home/models" / name, size=400 * MIB)
    write_model(folder / "home/models/giant", size=2000 * MIB)
    with running(folder) as kernel, kernel.client() as client:
        yield client


def state(client: RawClient, model: int) -> str:
    return str(client.call("stat_object", handle=model)["state"])


def test_the_model_of_least_value_sleeps_to_make_room_and_wakes_when_it_is_asked(client: RawClient) -> None:
    one, two = client.load("one"), client.load("two")
    client.infer(one, "x", max_tokens=1)
    three = client.load("three")
    assert [state(client, model) for model in (one, two, three)] == ["awake", "asleep", "awake"]
    why = client.call("stat_object", handle=two)["reasons"]
    assert why[0]["code"] == "model.evicted"
    assert why[0]["text"].startswith("it makes room for three: null0 is short of ")
    records = client.call("read_journal", system=client.system, about=client.call("stat_object", handle=two)["id"])
    assert records[-1]["text"] == f"two is put to sleep: {why[0]['text']}" and records[-1]["reasons"] == why[:1]
    assert client.infer(two, "again", max_tokens=5)["choices"][0]["text"] == "again"
    assert [state(client, model) for model in (one, three)] == ["awake", "asleep"]  # nobody has used three


def test_what_is_pinned_stays_and_the_refusal_has_the_numbers(client: RawClient) -> None:
    one, two = client.load("one", pin=True), client.load("two")
    client.call("control_object", handle=two, action="pin")
    error = client.error("load_model", path="/models/three", device=client.grants["null0"])
    assert isinstance(error, NoDeviceMemory)
    assert (error.needed, error.evictable) == (400 * MIB, 0)
    assert error.free < error.needed
    assert [state(client, model) for model in (one, two)] == ["awake", "awake"]
    client.call("control_object", handle=two, action="unpin")
    client.load("three")
    assert state(client, two) == "asleep"


def test_nothing_sleeps_in_vain(client: RawClient) -> None:
    one = client.load("one")
    error = client.error("load_model", path="/models/giant", device=client.grants["null0"])
    assert isinstance(error, NoDeviceMemory)
    assert error.evictable == 400 * MIB
    assert state(client, one) == "awake"

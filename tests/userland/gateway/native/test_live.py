"""The live stream: overview, journal, events; what happens when the kernel leaves; who sees what."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway_server import GatewayServer, serving
from system.kernel_process import running

ROOT = "/api/v1/live"
Events = Iterator[tuple[str, Any, str]]
TEXT = {"model": "null", "input": {"type": "text", "text": "a b c"}}


def events(answer: httpx2.Response) -> Events:
    """Name, data and id of each event."""
    name = number = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("id: "):
            number = line[4:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:]), number
            number = ""


def first(found: Events, name: str, good: Callable[[Any], bool] = lambda data: True) -> Any:
    """The next event of a name that is as wanted."""
    return next(data for what, data, _ in found if what == name and good(data))


def test_the_overview_shows_devices_models_and_rates(gateway: GatewayServer) -> None:
    http, worker = gateway.client(), gateway.client()
    assert worker.post("/api/v1/load_model", json={"path": "/models/null"}).is_success
    with http.stream("GET", f"{ROOT}?parts=overview") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = events(answer)
        seen = first(found, "overview")
        assert seen["kernel"]["state"] == "running" and not seen["kernel"]["pid"] and seen["kernel"]["version"]
        (device,) = [each for each in seen["devices"] if each["name"] != "host"]
        assert device["name"] == "null0" and device["total"] > device["free"] > 0
        assert "null" in {row["owner"] for row in device["rows"]}
        model = next(model for model in seen["models"] if model["name"] == "null")
        assert model["path"] == "/models/null" and model["state"] == "awake" and model["device"] == "null0"
        assert {driver["name"] for driver in seen["drivers"]} >= {"models", "files"}
        assert seen["alerts"] == []
        for _ in range(3):
            assert worker.post("/api/v1/infer", json=TEXT).is_success
        busy = first(found, "overview", lambda data: data["rates"]["requests_per_s"] > 0)
        assert busy["rates"]["tokens_per_s"] > 0 and busy["rates"]["request_p50_s"] > 0


def test_journal_and_events_come_as_they_happen(gateway: GatewayServer) -> None:
    root = gateway.client(gateway.key("admin"))
    root.post("/api/v1/load_model", json={"path": "/models/other"})
    with root.stream("GET", f"{ROOT}?parts=journal,events") as answer:
        found = events(answer)
        name, record, number = next(found)
        assert name == "journal" and number == str(record["seq"])
        gateway.client(gateway.key("admin")).post(
            "/api/v1/control_object", json={"handle": "model:other", "action": "sleep"}
        )
        seen: dict[str, Any] = {}
        while not {"journal", "event"} <= seen.keys():
            name, data, _ = next(found)
            text = data.get("text", "") or data.get("fields", {}).get("state", "")
            if "sleep" in text:
                seen[name] = data
        assert seen["event"]["kind"] == "model"
    with root.stream(
        "GET", f"{ROOT}?parts=journal", headers={"last-event-id": str(seen["journal"]["seq"] - 1)}
    ) as answer:
        name, record, _ = next(events(answer))
        assert record == seen["journal"]


def test_a_key_sees_nothing_of_others(gateway: GatewayServer) -> None:
    anna, bert = gateway.client(), gateway.client()
    mine = anna.get("/api/v1/sessions").json()["value"][0]["id"]
    anna.post("/api/v1/alloc_gpu", json={"device": "null0", "bytes": 77})
    with bert.stream("GET", f"{ROOT}?after=0") as answer:
        # What is told of a model that Bert may see comes after all that was told of Anna before.
        anna.post("/api/v1/load_model", json={"path": "/models/org/third"})
        said = ""
        for name, data, _ in itertools.islice(events(answer), 300):
            said += json.dumps(data)
            if name == "journal" and "third" in data["text"]:
                break
        else:
            pytest.fail(f"nothing was told of the model that was loaded: {said[-2000:]}")
        assert mine not in said and f"{mine}" not in said and "key-" not in said


def test_one_reading_serves_all_viewers_and_ends_with_the_last(gateway: GatewayServer) -> None:
    http = gateway.client()
    with http.stream("GET", ROOT) as one, http.stream("GET", ROOT) as two:
        left, right = events(one), events(two)
        at = first(left, "overview", lambda data: data["devices"])["at"]
        assert first(right, "overview", lambda data: data["at"] >= at)["at"] == at
    # The fixture fails when a session, a request or a task is left.


def test_the_stream_of_a_revoked_key_ends(gateway: GatewayServer) -> None:
    text = gateway.key("read")
    http = gateway.client(text)
    with http.stream("GET", ROOT) as answer:
        found = events(answer)
        first(found, "overview")
        gateway.run(revoke(gateway, text))
        list(found)  # comes to its end
    assert http.get("/api/v1/whoami").status_code == 401


async def revoke(gateway: GatewayServer, text: str) -> None:
    gateway.gateway.keys.revoke(text.split("_")[1])


@pytest.mark.parametrize(("query", "name"), [("?parts=all", "parts"), ("?parts=", "parts"), ("?after=-2", "after")])
def test_what_is_wrong_with_the_query_is_told(gateway: GatewayServer, query: str, name: str) -> None:
    answer = gateway.client().get(f"{ROOT}{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_it_tells_that_the_kernel_is_gone_and_back(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        kernel = stack.enter_context(running(folder, drivers="null0"))
        gateway = stack.enter_context(serving(kernel))
        http = gateway.client(gateway.key("admin"))
        answer = stack.enter_context(http.stream("GET", f"{ROOT}?parts=overview"))
        found = events(answer)
        first(found, "overview", lambda data: data["devices"])
        kernel.signal(signal.SIGKILL)
        kernel.ended()
        assert first(found, "gone")["text"]
        gone = first(found, "overview")
        assert gone["kernel"]["state"] == "gone" and gone["kernel"]["pid"] == kernel.pid and gone["devices"]
        kernel.clean()
        again = stack.enter_context(running(folder, drivers="null0"))
        assert first(found, "back") == {}
        back = first(found, "overview")
        assert back["kernel"]["state"] == "running" and back["kernel"]["pid"] == again.pid

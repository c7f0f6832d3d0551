"""Calls over HTTP, on a real gateway before a real kernel: results, errors, streams, progress."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from gateway_server import GatewayServer

from llmos.syscalls.spec import SYSCALLS
from llmos.userland.gateway.native.scopes import CALLS, NOT_OFFERED


@pytest.fixture
def http(gateway: GatewayServer) -> httpx2.Client:
    return gateway.client()


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """The events of a stream: name and data."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def load(http: httpx2.Client) -> str:
    answer = http.post("/api/v1/load_model", json={"path": "/models/null"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["value"]["id"])


def test_a_call_answers_with_value_request_and_reasons(http: httpx2.Client) -> None:
    model = load(http)
    answer = http.post("/api/v1/infer", json={"model": "null", "input": {"type": "text", "text": "a b"}})
    body = answer.json()
    assert answer.status_code == 200 and body["value"]["choices"][0]["text"] == "a b"
    assert body["request"].startswith("r-") and answer.headers["x-llmos-request"] == body["request"]
    assert body["value"]["usage"]["new_tokens"] > 0 and isinstance(body["reasons"], list)
    for name in (model, "/models/null", "model:null"):
        assert http.post("/api/v1/infer", json={"model": name, "input": {"type": "text", "text": "x"}}).is_success


def test_a_stored_model_is_loaded_when_it_is_run(http: httpx2.Client) -> None:
    answer = http.post("/api/v1/infer", json={"model": "org/third", "input": {"type": "text", "text": "hi"}})
    assert answer.json()["value"]["choices"][0]["text"] == "hi"


def test_answers_hold_no_handles(http: httpx2.Client) -> None:
    load(http)
    listed = http.post("/api/v1/list_objects", json={"kind": "model"}).json()["value"]
    assert any(info["name"] == "null" for info in listed)
    assert not any("handle" in info for info in listed)
    assert "handle" not in http.post("/api/v1/stat_object", json={"handle": "model:null"}).json()["value"]


def test_any_object_is_named_by_kind_and_name_or_by_id(http: httpx2.Client) -> None:
    model = load(http)
    for name in (f"model:{model}", model, "model:null"):
        assert http.post("/api/v1/stat_object", json={"handle": name}).json()["value"]["id"] == model
    assert http.post("/api/v1/stat_object", json={"handle": "system"}).json()["value"]["kind"] == "system"
    for name in ("null", "m-none-1", "model:none", "task:null"):
        assert http.post("/api/v1/stat_object", json={"handle": name}).status_code == 404


@pytest.mark.parametrize(
    ("body", "param", "text"),
    [
        ({}, "model", "missing"),
        ({"model": "null"}, "input", "missing"),
        ({"model": 5, "input": {"type": "text", "text": "x"}}, "model", "name, id or path of a model"),
        ({"model": "null", "input": {"type": "text", "txt": "x"}}, "input.txt", "unknown"),
        ({"model": "null", "input": {"type": "text", "text": "x"}, "deadline": 5}, "deadline", "timeout"),
        ({"model": "null", "input": {"type": "text", "text": "x"}, "timeout": 0}, "timeout", "seconds"),
        ({"model": "null", "input": {"type": "text", "text": "x"}, "sampling": {"top_p": 7}}, "sampling.top_p", "7"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_body_is_told(http: httpx2.Client, body: Any, param: str, text: str) -> None:
    answer = http.post("/api/v1/infer", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert text in error["message"] and error["type"] == "invalid_request_error"


DEEP = b'{"input":' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize("raw", [b"[]", b"5", b"{", b'{"a":}', b"\xff", DEEP])
def test_a_body_that_is_no_object_is_a_bad_request(http: httpx2.Client, raw: bytes) -> None:
    answer = http.post("/api/v1/infer", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text


def test_a_stream_brings_items_and_its_end(http: httpx2.Client) -> None:
    load(http)
    body = {"model": "null", "input": {"type": "text", "text": "one two three"}}
    with http.stream("POST", "/api/v1/infer_stream", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        got = list(events(answer.iter_lines()))
    assert "".join(data["text"] for name, data in got if name == "item") == "one two three"
    name, end = got[-1]
    assert name == "end" and end["value"]["choices"][0]["text"] == "one two three" and end["request"].startswith("r-")


def test_a_stream_that_is_refused_has_a_status_of_its_own(http: httpx2.Client) -> None:
    body = {"model": "nothing", "input": {"type": "text", "text": "x"}}
    answer = http.post("/api/v1/infer_stream", json=body)
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"


def test_a_stream_that_breaks_says_so(http: httpx2.Client) -> None:
    load(http)
    body = {"model": "null", "input": {"type": "text", "text": "!oom @step 2; one two three"}}
    with http.stream("POST", "/api/v1/infer_stream", json=body) as answer:
        got = list(events(answer.iter_lines()))
    assert [name for name, _ in got] == ["item", "error"]
    assert got[-1][1]["error"]["code"] == "no_device_memory"


def test_long_work_tells_its_progress_to_who_asks(http: httpx2.Client) -> None:
    body = {"path": "/models/other"}
    with http.stream("POST", "/api/v1/load_model", json=body, headers={"accept": "text/event-stream"}) as answer:
        got = list(events(answer.iter_lines()))
    assert got[-1][0] == "end" and got[-1][1]["value"]["name"] == "other"
    assert {name for name, _ in got[:-1]} <= {"progress"}
    body = {"path": "/models/none"}
    with http.stream("POST", "/api/v1/load_model", json=body, headers={"accept": "text/event-stream"}) as answer:
        ((name, data),) = events(answer.iter_lines())
    assert name == "error" and data["error"]["code"] == "not_found"


def test_events_are_watched_until_the_reader_leaves(http: httpx2.Client, gateway: GatewayServer) -> None:
    load(http)
    other = gateway.client()
    with http.stream("POST", "/api/v1/watch_events", json={"kinds": ["model"]}) as answer:
        lines = answer.iter_lines()
        next(lines)  # it watches now
        body = {"handle": "model:null", "action": "sleep"}
        assert gateway.client(gateway.key("admin")).post("/api/v1/control_object", json=body).is_success
        name, event = next(events(lines))
    assert name == "item" and event["kind"] == "model" and event["fields"]["name"] == "null"
    assert other.get("/api/v1/whoami").is_success


def test_a_timeout_is_a_deadline(http: httpx2.Client) -> None:
    load(http)
    body = {"model": "null", "input": {"type": "text", "text": "!slow 1000; a b c d e f g h"}, "timeout": 0.2}
    assert http.post("/api/v1/infer", json=body).status_code == 504


def test_bytes_travel_as_base64(http: httpx2.Client) -> None:
    load(http)
    answer = http.post("/api/v1/embed", json={"model": "null", "input": {"type": "text", "text": "x"}})
    tensor = answer.json()["value"]["result"]["tensor"]
    assert tensor["dtype"] == "float32" and isinstance(tensor["data"], str) and tensor["data"]


def test_a_lease_is_held_and_given_back(http: httpx2.Client) -> None:
    made = http.post("/api/v1/alloc_gpu", json={"device": "null0", "bytes": 10}).json()["value"]
    assert made["bytes"] == 10
    listed = http.post("/api/v1/list_objects", json={"kind": "lease"}).json()["value"]
    assert [info["id"] for info in listed] == [made["id"]]
    assert http.post("/api/v1/close_handle", json={"handle": made["id"]}).is_success
    assert http.post("/api/v1/list_objects", json={"kind": "lease"}).json()["value"] == []
    assert http.post("/api/v1/close_handle", json={"handle": made["id"]}).status_code == 404
    refused = http.post("/api/v1/close_handle", json={"handle": "device:null0"})
    assert refused.status_code == 400 and "leases and contexts" in refused.json()["error"]["message"]


def test_a_conversation_goes_on_until_it_is_closed(http: httpx2.Client) -> None:
    load(http)
    opened = http.post("/api/v1/open_context", json={"model": "null"}).json()["value"]
    body = {"model": "null", "context": opened["id"], "input": {"type": "text", "text": "a b"}}
    for _ in range(2):
        assert http.post("/api/v1/infer", json=body).is_success
    assert http.post("/api/v1/stat_object", json={"handle": opened["id"]}).json()["value"]["fields"]["tokens"] > 0
    assert http.post("/api/v1/close_handle", json={"handle": f"context:{opened['id']}"}).is_success
    assert http.post("/api/v1/infer", json=body).status_code == 404


def test_data_of_others_are_not_tuned_on(http: httpx2.Client) -> None:
    load(http)
    body = {"model": "null", "recipe": {"method": "lora"}, "data": "/home/you/data.jsonl", "out": "/models/tuned"}
    assert http.post("/api/v1/tune", json=body).status_code in (403, 404)
    assert http.post("/api/v1/tune", json={**body, "data": "/home/me/none"}).status_code == 404


def test_every_call_of_the_table_is_offered_or_says_why_not(http: httpx2.Client) -> None:
    assert CALLS.keys() | NOT_OFFERED.keys() == SYSCALLS.keys() and not CALLS.keys() & NOT_OFFERED.keys()
    assert http.post("/api/v1/hello", json={}).status_code == 404
    assert http.get("/api/v1/infer").status_code == 405

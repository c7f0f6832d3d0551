"""The GET forms of calls that read."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from gateway_server import GatewayServer


@pytest.fixture
def http(gateway: GatewayServer) -> httpx2.Client:
    made = gateway.client()
    assert made.post("/api/v1/load_model", json={"path": "/models/null"}).is_success
    return made


def value(http: httpx2.Client, url: str) -> Any:
    answer = http.get(url)
    assert answer.status_code == 200, answer.text
    return answer.json()["value"]


def test_lists_of_objects(http: httpx2.Client) -> None:
    assert "null" in [info["name"] for info in value(http, "/api/v1/models")]
    assert [info["name"] for info in value(http, "/api/v1/models?prefix=nu")] == ["null"]
    assert [info["name"] for info in value(http, "/api/v1/devices")] == ["null0"]
    assert {info["name"] for info in value(http, "/api/v1/drivers")} >= {"models", "files"}
    assert value(http, "/api/v1/tasks") == []
    (mine,) = value(http, "/api/v1/sessions")
    assert mine["fields"]["tenant"].startswith("key-") and "pid" not in mine["fields"]


def test_paths(http: httpx2.Client) -> None:
    assert value(http, "/api/v1/stat/models/null")["kind"] == "model"
    assert [entry["path"] for entry in value(http, "/api/v1/list/models")] == [
        "/models/null", "/models/org", "/models/other", "/models/tiny",
    ]  # fmt: skip
    assert value(http, "/api/v1/list/models?after=/models/null")[0]["path"] == "/models/org"
    assert value(http, "/api/v1/list/home/me") == []
    assert http.get("/api/v1/stat/models/none").status_code == 404
    assert http.get("/api/v1/list/home/me/sub").status_code == 404


def test_metrics_are_without_what_is_of_others(http: httpx2.Client, gateway: GatewayServer) -> None:
    http.post("/api/v1/infer", json={"model": "null", "input": {"type": "text", "text": "x"}})
    mine = value(http, "/api/v1/metrics?prefix=llmos_")
    assert "llmos_sessions" in mine and not any("tenant" in metric["labels"] for metric in mine.values())
    all_of_it = value(gateway.client(gateway.key("admin")), "/api/v1/metrics")
    assert any("tenant" in metric["labels"] for metric in all_of_it.values())


def test_the_journal_has_filters(http: httpx2.Client, gateway: GatewayServer) -> None:
    (model,) = value(http, "/api/v1/models?prefix=null")
    records = value(http, f"/api/v1/journal?about={model['id']}&level=info&limit=5")
    assert records and {record["about"] for record in records} == {model["id"]} and len(records) <= 5
    seen = value(http, "/api/v1/journal?limit=3")
    assert len(seen) <= 3
    later = value(http, f"/api/v1/journal?after={seen[-1]['seq']}")
    assert all(record["seq"] > seen[-1]["seq"] for record in later)
    root = gateway.client(gateway.key("admin"))
    assert any(record["unit"] == "session" for record in value(root, "/api/v1/journal?level=debug&limit=1000"))
    assert not any(record["unit"] == "kernel" for record in value(http, "/api/v1/journal?after=0&limit=1000"))


def test_a_plan_says_whether_a_model_fits(http: httpx2.Client) -> None:
    planned = value(http, "/api/v1/plan?path=/models/other&device=null0&dtype=float32&max_context=100")
    assert planned["plan"]["fits"] is True and planned["device"] == "null0" and "handle" not in planned
    assert http.get("/api/v1/plan?path=/models/other&device=none").status_code == 404
    assert http.get("/api/v1/plan").json()["error"]["param"] == "path"
    assert "other" not in [info["name"] for info in value(http, "/api/v1/models")]


def test_why(http: httpx2.Client, gateway: GatewayServer) -> None:
    (model,) = value(http, "/api/v1/models?prefix=null")
    for about in (model["id"], "null", "models/null", "/models/null"):
        reasons = value(http, f"/api/v1/why/{about}")
        assert any("null" in reason["text"] for reason in reasons), about
    assert value(http, "/api/v1/why/null0")
    assert http.get("/api/v1/why/nothing").status_code == 404
    assert http.get("/api/v1/why/r-none-1").status_code == 404


def test_why_a_request_runs_or_waits_is_told_to_whose_it_is(http: httpx2.Client, gateway: GatewayServer) -> None:
    root, other = gateway.client(gateway.key("admin")), gateway.client()
    body = {"model": "null", "input": {"type": "text", "text": "!slow 100; " + "a " * 40}}
    with http.stream("POST", "/api/v1/infer_stream", json=body) as answer:
        next(answer.iter_lines())
        names = [entry["path"].rpartition("/")[2] for entry in value(root, "/api/v1/list/proc/requests")]
        told = {name: (http.get(f"/api/v1/why/{name}"), other.get(f"/api/v1/why/{name}")) for name in names}
        assert any(mine.status_code == 200 for mine, _ in told.values())
        assert all(others.status_code == 404 for _, others in told.values())
    (name, *_) = [name for name, (mine, _) in told.items() if mine.status_code == 200]
    while not any(reason["code"].startswith("request.") for reason in value(root, f"/api/v1/why/{name}")[-1:]):
        pass  # the kernel is about to see that nobody reads any more
    assert value(http, f"/api/v1/why/{name}")[-1]["code"].startswith("request.")
    assert other.get(f"/api/v1/why/{name}").status_code == 404, "also after it has ended"


def test_search(http: httpx2.Client) -> None:
    hits = value(http, "/api/v1/search?path=/models&query=third&limit=2")
    assert hits[0]["path"] == "/models/org/third" and hits[0]["reason"]
    filters = json.dumps({"kind": "model"})
    assert len(value(http, f"/api/v1/search?limit=2&filters={filters}")) == 2


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/api/v1/journal?limit=0", "limit"), ("/api/v1/journal?limit=x", "limit"),
        ("/api/v1/journal?after=-2", "after"),
        ("/api/v1/journal?limit=٣", "limit"), ("/api/v1/journal?level=loud", "level"),
        ("/api/v1/journal?when=now", "when"),
        ("/api/v1/journal?limit=1&limit=2", "limit"), ("/api/v1/search?filters=[]", "filters"),
        ("/api/v1/search?filters={", "filters"), ("/api/v1/search?limit=1001", "limit"), ("/api/v1/whoami?x=1", "x"),
        ("/api/v1/plan?path=/models/null&max_context=0", "max_context"), ("/api/v1/stat/models/null?after=x", "after"),
        ("/api/v1/plan?path=/models/null&dtype=int3", "dtype"),
    ],
)  # fmt: skip
def test_a_query_is_checked(http: httpx2.Client, url: str, name: str) -> None:
    answer = http.get(url)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)

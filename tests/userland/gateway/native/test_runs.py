"""Records of runs: seen by the key that began them, without what is of this machine."""

from __future__ import annotations

import json
from typing import Any

import httpx2
from gateway_server import GatewayServer


def tuned(http: httpx2.Client, out: str, **recipe: Any) -> str:
    assert http.post("/api/v1/load_model", json={"path": "/models/null"}).is_success
    assert http.put("/api/v1/files/home/me/d.jsonl", content=b'{"text": "fox"}\n').is_success
    order = {"model": "null", "data": "/home/me/d.jsonl", "out": out, "batch_size": 1, **recipe}
    answer = http.post("/microtune", json=order)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["value"]["id"])


def value(http: httpx2.Client, url: str) -> Any:
    answer = http.get(url)
    assert answer.status_code == 200, answer.text
    return answer.json()["value"]


def test_a_run_is_listed_and_shown_to_whose_it_is(gateway: GatewayServer) -> None:
    http, other, root = gateway.client(), gateway.client(), gateway.client(gateway.key("admin"))
    id = tuned(http, "/models/seen", epochs=3)
    assert http.post("/api/v1/wait_task", json={"task": id, "timeout": 30}).json()["value"]["state"] == "done"
    (listed,) = [run for run in value(http, "/api/v1/runs") if run["id"] == id]
    told = {"state": "done", "out": "/models/seen", "promoted": True, "method": "lora"}
    assert {name: listed[name] for name in told} == told
    assert listed["model"]["name"] == "null" and listed["version"] and not listed.keys() & {"curve", "recipe", "facts"}
    run = value(http, f"/api/v1/runs/{id}")
    assert run["recipe"]["epochs"] == 3 and [point["step"] for point in run["curve"]] == [1, 2, 3]
    assert run["data"] == "/home/me/d.jsonl" and "data_crc32" in run["facts"]
    assert str(gateway.kernel.home) not in json.dumps(run), "nothing of where it lies"
    assert other.get(f"/api/v1/runs/{id}").status_code == 404 and http.get("/api/v1/runs/t-none").status_code == 404
    assert id not in [run["id"] for run in value(other, "/api/v1/runs")]
    assert id in [run["id"] for run in value(root, "/api/v1/runs")]


def test_whether_it_is_promoted_is_not_known_before_there_is_a_result(gateway: GatewayServer) -> None:
    http = gateway.client()
    id = tuned(http, "/models/held", options={"hold": [0, "/nothing/there"]})
    run = value(http, f"/api/v1/runs/{id}")
    assert (run["state"], run["promoted"], run["version"]) == ("running", None, "")
    assert http.post("/api/v1/cancel_task", json={"task": id}).is_success

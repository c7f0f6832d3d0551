"""The three short routes."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_server import GatewayServer


def test_a_model_is_discovered(gateway: GatewayServer) -> None:
    http = gateway.client()
    hits = http.get("/discover?query=third&limit=1").json()["value"]
    assert [hit["path"] for hit in hits] == ["/models/org/third"]
    assert http.get("/discover?task=text-generation&limit=2").is_success
    assert http.get("/discover?limit=0").json()["error"]["param"] == "limit"


def test_a_model_is_registered(gateway: GatewayServer) -> None:
    http = gateway.client()
    answer = http.post("/register", json={"source": "/models/null", "name": "copy", "alias": "best", "licence": "mit"})
    assert answer.status_code == 202, answer.text
    task = answer.json()["value"]
    assert task["id"].startswith("t-") and "handle" not in task
    ended = http.post("/api/v1/wait_task", json={"task": task["id"], "timeout": 30}).json()["value"]
    assert ended["state"] == "done", ended
    found = http.get("/api/v1/stat/models/copy@best").json()["value"]
    assert found["kind"] == "model" and found["fields"]["licence"] == "mit"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400), ({"source": "/models/null"}, 400), ({"source": "/etc", "name": "x"}, 403),
        ({"source": "/models/null", "name": "../x"}, 400), ({"source": "./here", "name": "x"}, 400),
        ({"source": "/models/null", "name": "x", "nonsense": 1}, 400), ({"source": "/models/none", "name": "x"}, 404),
    ],
)  # fmt: skip
def test_what_cannot_be_registered(gateway: GatewayServer, body: dict[str, Any], status: int) -> None:
    assert gateway.client().post("/register", json=body).status_code == status


def test_a_model_is_tuned(gateway: GatewayServer) -> None:
    http = gateway.client()
    assert http.post("/api/v1/load_model", json={"path": "/models/null"}).is_success
    assert http.put("/api/v1/files/home/me/d.jsonl", content=b'{"text": "fox"}\n').is_success
    order = {"model": "null", "data": "/home/me/d.jsonl", "out": "/models/tuned", "rank": 4, "batch_size": 1}
    answer = http.post("/microtune", json=order)
    task = answer.json()["value"]
    assert answer.status_code == 202 and (task["kind"], task["state"]) == ("tune", "running")
    result = http.post("/api/v1/wait_task", json={"task": task["id"]}).json()["value"]
    assert result["value"]["path"] == "/models/tuned"
    assert http.post("/microtune", json={**order, "method": "magic"}).status_code in (400, 409)
    by_path = http.post("/microtune", json={**order, "model": "/models/null", "out": "/models/tuned@second"})
    assert by_path.status_code == 202, by_path.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "null", "data": "/home/me/d"}, "body"), ({"model": "null", "data": "/home/me/d", "out": 5}, "body"),
        ({"model": "null", "data": "/home/me/d", "out": "/models/t", "rnk": 4}, "recipe.rnk"),
        ({"model": "null", "data": "/home/me/d", "out": "/models/t", "rank": 0}, "recipe.rank"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_order_to_tune(gateway: GatewayServer, body: dict[str, Any], param: str) -> None:
    answer = gateway.client().post("/microtune", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

"""KServe's protocol before a real kernel; the null device echoes tensors."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from gateway_server import GatewayServer

from llmos.userland.gateway.native.tensors import HEADER

TENSOR = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.5]}


def test_the_server(gateway: GatewayServer) -> None:
    client = gateway.client()
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    server = client.get("/v2").json()
    assert server["name"] == "llmos" and "binary_tensor_data" in server["extensions"]


def test_tensors_in_and_out(gateway: GatewayServer) -> None:
    answer = gateway.client().post("/v2/models/null/infer", json={"id": "mine", "inputs": [TENSOR]}).json()
    assert answer["id"] == "mine" and answer["model_name"] == "null" and answer["model_version"]
    assert TENSOR in answer["outputs"]


def test_tensors_as_bytes(gateway: GatewayServer) -> None:
    client = gateway.client()
    data = struct.pack("<1000f", *range(1000))
    named = {"name": "x", "shape": [1000], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    head = client.build_request(
        "POST", "/", json={"inputs": [named], "parameters": {"binary_data_output": True}}
    ).content
    sent = {HEADER: str(len(head)), "Content-Type": "application/octet-stream"}
    answer = client.post("/v2/models/null/infer", content=head + data, headers=sent)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/octet-stream"
    assert answer.content[int(answer.headers[HEADER]) :].startswith(data)


def test_models_and_the_repository(gateway: GatewayServer) -> None:
    client = gateway.client()
    assert client.get("/v2/models/org/third").status_code == 404
    assert client.get("/v2/models/org/third/ready").status_code == 404
    assert client.post("/v2/repository/models/org/third/load").status_code == 200
    shown = client.get("/v2/models/org/third").json()
    assert shown["name"] == "org/third" and len(shown["versions"]) == 1
    assert client.get("/v2/models/org/third/ready").json() == {"name": "org/third", "ready": True}
    states = {model["name"]: model for model in client.post("/v2/repository/index").json()}
    assert states["org/third"]["state"] == "READY" and states["org/third"]["version"] == shown["versions"][0]
    assert client.post("/v2/repository/models/org/third/unload").status_code == 200
    states = {model["name"]: model for model in client.post("/v2/repository/index").json()}
    assert (states["org/third"]["state"], states["org/third"]["reason"]) == ("UNAVAILABLE", "stored")
    assert client.post("/v2/repository/models/org/third/unload").status_code == 404


def test_one_version_of_a_model(gateway: GatewayServer) -> None:
    client = gateway.client()
    client.post("/v2/repository/models/other/load")
    version = client.get("/v2/models/other").json()["versions"][0]
    path = f"/v2/models/other/versions/{version}"
    answer = client.post(f"{path}/infer", json={"inputs": [TENSOR]})
    assert answer.status_code == 200 and answer.json()["model_version"] == version
    assert client.get("/v2/models/other/versions/none/ready").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("models/none/infer", {"inputs": [TENSOR]}, 404, "'none'"),
        ("models/null/infer", {"inputs": []}, 400, "empty"),
        ("models/null/infer", {"inputs": [{**TENSOR, "shape": [3]}]}, 400, "its shape takes 3"),
        ("models/null/infer", {"inputs": [TENSOR], "outputs": [{"name": "nope"}]}, 400, "'nope'"),
    ],
)
def test_errors_are_one_sentence(gateway: GatewayServer, path: str, body: Any, status: int, says: str) -> None:
    answer = gateway.client().post(f"/v2/{path}", json=body)
    assert answer.status_code == status and set(answer.json()) == {"error"} and says in answer.json()["error"]


def test_keys_and_scopes(gateway: GatewayServer) -> None:
    unknown = gateway.client("").get("/v2/health/live")
    assert unknown.status_code == 401 and isinstance(unknown.json()["error"], str)
    reader = gateway.client(gateway.key("read"))
    assert reader.get("/v2/models/null/ready").status_code in (200, 404)
    for path in ("models/null/infer", "repository/models/null/load", "repository/models/null/unload"):
        assert reader.post(f"/v2/{path}", json={"inputs": [TENSOR]}).status_code == 403
    kept = gateway.client(gateway.key("read", "infer", "manage", models=["other"]))
    assert [model["name"] for model in kept.post("/v2/repository/index").json()] == ["other"]
    assert kept.post("/v2/models/null/infer", json={"inputs": [TENSOR]}).status_code == 404
    assert kept.post("/v2/repository/models/null/unload").status_code == 404

"""Lists of models in Ollama's form."""

from __future__ import annotations

from datetime import datetime

import pytest
from gateway_server import GatewayServer
from system.model_folder import write_model

from llmos.userland.gateway.ollama.models import details, digest, parameters_text


def test_what_is_stored_and_what_is_loaded(gateway: GatewayServer) -> None:
    client = gateway.client()
    client.post("/api/generate", json={"model": "null", "keep_alive": "5m"})
    client.post("/api/generate", json={"model": "other", "keep_alive": -1})
    models = {model["name"]: model for model in client.get("/api/tags").json()["models"]}
    assert {"null:latest", "other:latest", "org/third:latest"} <= set(models)
    for name, model in models.items():
        assert model["model"] == name and len(model["digest"]) == 64 and model["details"]["format"] == "safetensors"
        assert datetime.fromisoformat(model["modified_at"]).tzinfo is not None
    assert models["org/third:latest"]["size"] > 0
    running = {model["name"]: model for model in client.get("/api/ps").json()["models"]}
    assert running["null:latest"]["size_vram"] > 0 and running["null:latest"]["context_length"] == 2048
    assert running["null:latest"]["digest"] == models["null:latest"]["digest"]
    minutes = datetime.fromisoformat(running["null:latest"]["expires_at"]) - datetime.now().astimezone()
    assert 0 < minutes.total_seconds() <= 301
    assert running["other:latest"]["expires_at"].startswith("9999")


@pytest.mark.parametrize("name", ["null", "org/third", "other:latest"])
def test_one_model(gateway: GatewayServer, name: str) -> None:
    shown = gateway.client().post("/api/show", json={"model": name}).json()
    family = shown["details"]["family"]
    assert shown["model_info"][f"{family}.context_length"] == 2048
    assert "completion" in shown["capabilities"]


def test_a_key_sees_its_models(gateway: GatewayServer) -> None:
    client = gateway.client(gateway.key("read", "infer", "manage", models=["other"]))
    assert [model["name"] for model in client.get("/api/tags").json()["models"]] == ["other:latest"]
    assert {model["name"] for model in client.get("/api/ps").json()["models"]} <= {"other:latest"}
    for method, path in (("POST", "show"), ("DELETE", "delete")):
        refused = client.request(method, f"/api/{path}", json={"model": "null"})
        assert refused.status_code == 404 and "'null'" in refused.json()["error"]


def test_a_model_is_removed(gateway: GatewayServer) -> None:
    write_model(gateway.kernel.home / "models" / "short")
    client = gateway.client()
    assert client.post("/api/show", json={"model": "short"}).status_code == 200
    assert client.request("DELETE", "/api/delete", json={"model": "short"}).status_code == 200
    for method, path in (("POST", "show"), ("DELETE", "delete")):
        assert client.request(method, f"/api/{path}", json={"model": "short"}).status_code == 404
    assert not (gateway.kernel.home / "models" / "short").exists()
    reader = gateway.client(gateway.key("read"))
    assert reader.request("DELETE", "/api/delete", json={"model": "null"}).status_code == 403


def test_the_version(gateway: GatewayServer) -> None:
    assert gateway.client().get("/api/version").json()["version"].count(".") == 2


@pytest.mark.parametrize(
    ("count", "text"), [(7_615_616_512, "7.6B"), (494_032_768, "494.0M"), (1200, "1.2K"), (7, "7"), (0, "0")]
)
def test_sizes_are_told_as_people_do(count: int, text: str) -> None:
    assert parameters_text(count) == text
    assert details({"parameters": count})["parameter_size"] == text


def test_a_digest_names_a_version() -> None:
    assert digest("/models/x@2", "2") == digest("/models/x", "2") != digest("/models/x", "3")

"""Adapters by hand, as vLLM's clients load them."""

from __future__ import annotations

from gateway_server import GatewayServer
from system.model_folder import write_model


def test_load_and_unload(gateway: GatewayServer) -> None:
    write_model(gateway.kernel.models / "lora", parents=[{"path": "/models/null", "version": "", "how": "adapter"}])
    client = gateway.client()
    loaded = client.post("/v1/load_lora_adapter", json={"lora_name": "mine", "lora_path": "/models/lora"})
    assert loaded.status_code == 200 and "mine" in loaded.text, loaded.text
    chat = {"model": "mine", "messages": [{"role": "user", "content": "hi"}]}
    assert client.post("/v1/chat/completions", json=chat).status_code == 200
    again = client.post("/v1/load_lora_adapter", json={"lora_name": "mine", "lora_path": "/models/other"})
    assert again.status_code == 409
    assert client.post("/v1/unload_lora_adapter", json={"lora_name": "mine"}).status_code == 200
    assert client.post("/v1/unload_lora_adapter", json={"lora_name": "mine"}).status_code == 404
    named = gateway.client(gateway.key("load", models=("null",)))
    assert named.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": "lora"}).status_code == 404

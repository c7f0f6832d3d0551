"""Models as the API shows them."""

from __future__ import annotations

from gateway_server import GatewayServer

from llmos.userland.gateway.core.models import ListedModel
from llmos.userland.gateway.openai.models import shown


def test_what_is_shown() -> None:
    model = ListedModel("org/x", "/models/org/x", "stored", ["text-generation"], 512, 7, "org", "", True)
    assert shown(model) == {
        "id": "org/x", "object": "model", "created": 7, "owned_by": "org",
        "llmos": {
            "state": "stored", "tasks": ["text-generation"], "context": 512, "path": "/models/org/x", "adapter_of": "",
            "chat": True,
        },
    }  # fmt: skip


def test_a_model_is_found_by_its_names(gateway: GatewayServer) -> None:
    client = gateway.client()
    for name in ("org/third", "/models/org/third"):
        found = client.get(f"/v1/models/{name}")
        assert found.status_code == 200 and found.json()["id"].endswith("org/third"), found.text
    assert client.get("/v1/models/third-party").status_code == 404

"""Tools of responses; the routes are in `test_client` and `test_routes`."""

from __future__ import annotations

import json

import pytest
from gateway_server import GatewayServer

from llmos.syscalls.errors import NotSupported
from llmos.userland.gateway.openai.responses import function_tools


def test_only_functions_are_served() -> None:
    tools = [{"type": "function", "name": "f"}]
    assert function_tools(tools) == tools and function_tools(None) is None
    with pytest.raises(NotSupported):
        function_tools([{"type": "file_search"}])


def test_what_is_not_to_be_stored_is_not(gateway: GatewayServer) -> None:
    client = gateway.client()
    made = client.post("/v1/responses", json={"model": "null", "input": "x", "store": False}).json()
    assert made["store"] is False and client.get(f"/v1/responses/{made['id']}").status_code == 404
    assert client.delete("/v1/responses/resp-none").status_code == 404


def test_a_conversation_goes_on(gateway: GatewayServer) -> None:
    client = gateway.client()
    first = client.post("/v1/responses", json={"model": "null", "input": "one"}).json()
    second = {"model": "null", "input": "two", "previous_response_id": first["id"]}
    made = client.post("/v1/responses", json=second).json()
    stored = gateway.gateway.store
    key = client.headers["authorization"].split("_")[1]
    row = stored.response(key, made["id"])
    assert row is not None
    assert [message["content"] for message in json.loads(row.messages)] == ["one", "one", "two", "two"]

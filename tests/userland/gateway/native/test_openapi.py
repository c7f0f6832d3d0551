"""The document describes every route and nothing else."""

from __future__ import annotations

import re
from typing import Any

from gateway_server import GatewayServer
from starlette.routing import Route

from llmos.syscalls.spec import SYSCALLS
from llmos.userland.gateway.core.app import all_routes
from llmos.userland.gateway.core.routing import scope_of
from llmos.userland.gateway.native.openapi import STATUSES, document
from llmos.userland.gateway.native.scopes import CALLS, NOT_OFFERED

ROUTES = all_routes()
DOCUMENT = document(ROUTES)


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_route_is_described_and_nothing_else() -> None:
    served = {
        (re.sub(r":\w+}", "}", route.path), method.lower())
        for route in ROUTES
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == {(path, method) for path, method, _ in operations()}


def test_every_operation_has_its_own_name_a_summary_and_its_scope() -> None:
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))
    assert not [
        path
        for path, _, operation in operations()
        if not (operation["summary"] or path.startswith("/dashboard") or path == "/")
    ]
    scopes = {
        (re.sub(r":\w+}", "}", route.path), method.lower()): scope_of(route)
        for route in ROUTES
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    for path, method, operation in operations():
        if scopes[path, method] is None:
            assert operation["security"] == []
        else:
            assert operation["x-llmos-scope"] == scopes[path, method]
            assert "security" not in operation
        assert {str(status) for status in STATUSES} <= operation["responses"].keys(), path


def test_every_parameter_of_a_path_is_declared() -> None:
    for path, _, operation in operations():
        declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), path


def test_every_call_has_its_body_and_those_that_are_not_offered_a_reason() -> None:
    for name in CALLS:
        operation = DOCUMENT["paths"][f"/api/v1/{name}"]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{SYSCALLS[name].cls.__name__}"}
        assert operation["summary"]
        kinds = operation["responses"]["200"]["content"].keys()
        assert ("text/event-stream" in kinds) and ("application/json" in kinds) == (not SYSCALLS[name].streams)
    assert all(name in DOCUMENT["info"]["description"] for name in NOT_OFFERED)


def test_every_reference_leads_somewhere() -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [value["$ref"]] if "$ref" in value else [r for inner in value.values() for r in references(inner)]
        return [r for inner in value for r in references(inner)] if isinstance(value, list) else []

    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


def test_it_is_served(gateway: GatewayServer) -> None:
    http = gateway.client()
    for _ in range(2):
        answer = http.get("/openapi.json")
        assert answer.json() == DOCUMENT and answer.headers["content-type"] == "application/json"
    assert gateway.client("").get("/openapi.json").status_code == 401

"""The border between keys, tried on every route: key B against what is key A's; and every route has its scope."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

import pytest
from gateway_server import GatewayServer
from starlette.routing import Route

from llmos.userland.gateway.core.app import all_routes
from llmos.userland.gateway.core.routing import scope_of
from llmos.userland.gateway.core.scopes import SCOPES, is_public
from llmos.userland.gateway.native.openapi import document
from llmos.userland.gateway.native.routes import routes
from llmos.userland.gateway.native.scopes import CALLS

SECRET = "only-annas-eyes"
ROUTES = [route for route in routes() if isinstance(route, Route)]


class Anna:
    """What key A owns."""

    def __init__(self, gateway: GatewayServer) -> None:
        self.key = gateway.key()
        self.id = self.key.split("_")[1]
        self.http = http = gateway.client(self.key)
        assert http.put("/api/v1/files/home/me/secret.txt", content=SECRET.encode()).status_code == 201
        loaded = http.post("/api/v1/load_model", json={"path": "/models/null"})
        assert loaded.is_success, loaded.text
        self.context = http.post("/api/v1/open_context", json={"model": "null"}).json()["value"]["id"]
        self.lease = http.post("/api/v1/alloc_gpu", json={"device": "null0", "bytes": 7}).json()["value"]["id"]
        self.session = next(
            info["id"] for info in http.get("/api/v1/sessions").json()["value"] if info["fields"]["tenant"]
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody else may read anywhere."""
        return SECRET, self.context, self.lease, self.session, f"keys/{self.id}", f"key-{self.id}"


@pytest.fixture
def anna(gateway: GatewayServer) -> Anna:
    return Anna(gateway)


def bodies(call: str, anna: Anna) -> list[dict[str, Any]]:
    """Attempts with a call at what is Anna's."""
    paths = [
        f"/home/keys/{anna.id}", f"/home/keys/{anna.id}/secret.txt", "/home", "/home/keys", "/", "/proc/sessions",
        "/proc/requests", "/sys/journal", "/sys/memory", f"/home/me/../{anna.id}/secret.txt", "/home/me/..",
    ]  # fmt: skip
    objects = [anna.context, anna.lease, anna.session]
    named = [*objects, f"context:{anna.context}", f"lease:{anna.lease}", f"session:{anna.session}"]
    text = {"type": "text", "text": "x"}
    picture = [{"type": "parts", "parts": [{"type": "image", "path": path}]} for path in paths]
    attempts: dict[str, list[dict[str, Any]]] = {
        "list_objects": [{"kind": kind} for kind in ("session", "context", "lease", "task", "buffer", "file", "mount")],
        "stat_object": [{"handle": name} for name in named],
        "close_handle": [{"handle": name} for name in named],
        "control_object": [
            {"handle": name, "action": action} for name in named for action in ("drop", "limit", "pause")
        ] + [{"handle": "device:null0", "action": "limit", "options": {"bytes": 1}},
             {"handle": "driver:null0", "action": "stop"}],
        "stat_path": [{"path": path} for path in paths],
        "list_dir": [{"path": path} for path in paths],
        "remove_path": [{"path": path} for path in paths],
        "search_fs": [{"path": path, "query": "secret"} for path in paths],
        "load_model": [{"path": path} for path in paths] + [{"path": "/models/null", "options": {"draft": paths[0]}}],
        "transform_model": [
            {"sources": [path], "out": "/home/me/x", "recipe": {"kind": "import"}} for path in paths
        ] + [{"sources": ["/models/null"], "out": path, "recipe": {"kind": "import"}} for path in paths],
        "tune": [{"model": "null", "recipe": {"method": "lora"}, "data": path, "out": "/models/t"} for path in paths],
        "infer": [{"model": "null", "input": one} for one in picture]
        + [{"model": "null", "input": text, "context": anna.context}],
        "infer_stream": [{"model": "null", "input": one} for one in picture]
        + [{"model": "null", "input": text, "context": anna.context}],
        "open_context": [{"model": "null", "parent": anna.context}],
        "read_journal": [{"after": 0, "limit": 10_000, "level": "debug"}]
        + [{"about": name, "level": "debug"} for name in objects],
        "read_metrics": [{}],
        "wait_task": [{"task": name} for name in named],
        "cancel_task": [{"task": name} for name in named],
        "unload_model": [{"model": name} for name in named],
        "alloc_gpu": [{"device": name, "bytes": 1} for name in named],
        "embed": [{"model": name, "input": text} for name in named],
        "watch_events": [],
    }  # fmt: skip
    return attempts[call]


# What is refused must be refused for that: 400, 403, 404, or 501 for what is not there at all.
REFUSED = {400, 403, 404, 501}
SHOWS = {"list_objects", "read_journal", "read_metrics"}


def test_no_call_reaches_what_is_another_keys(gateway: GatewayServer, anna: Anna) -> None:
    bert = gateway.client()
    for call in CALLS:
        for body in bodies(call, anna):
            answer = bert.post(f"/api/v1/{call}", json=body)
            if call in SHOWS:
                assert answer.status_code == 200, (call, body, answer.text)
            else:
                assert answer.status_code in REFUSED, (call, body, answer.text)
            given = json.dumps(body)
            for secret in anna.secrets:
                assert secret in given or secret not in answer.text, (call, body, answer.text)
        assert_untouched(anna)


PATHS = (
    "home/keys/{id}", "home/keys/{id}/secret.txt", "home/keys", "home", "", "proc/sessions", "sys/journal",
    "home/me/../{id}/secret.txt", "home/me/%2e%2e/{id}/secret.txt", "home%2Fkeys%2F{id}%2Fsecret.txt",
    "models/../home/keys/{id}/secret.txt", "models/%2e%2e/home/keys/{id}", "/home/keys/{id}/secret.txt",
    "home/me/..%2f{id}%2fsecret.txt", "home/keys/./{id}/secret.txt", "home/keys/{id}/secret.txt%00",
)  # fmt: skip


def urls_of(route: Route, anna: Anna) -> set[str]:
    """Attempts with a route at what is Anna's."""
    paths = [path.format(id=anna.id) for path in PATHS]
    names = [anna.context, anna.lease, anna.session, anna.id, "r-1", "%2e%2e"]
    queries = {
        "/api/v1/search": [f"?path=/{path}" for path in paths], "/api/v1/plan": [f"?path=/{path}" for path in paths],
        "/api/v1/journal": [f"?about={name}&level=debug" for name in names],
    }  # fmt: skip
    filled = [route.path.replace("{path:path}", path) for path in paths]
    filled += [route.path.replace("{about:path}", name).replace("{id}", name) for name in names]
    filled += [route.path + query for query in queries.get(route.path, ())]
    return {url for url in filled if "{" not in url}


def test_no_url_reaches_what_is_another_keys(gateway: GatewayServer, anna: Anna) -> None:
    bert = gateway.client()
    # The live stream has no end: test_live tries it.
    for route in [route for route in ROUTES if "POST" not in (route.methods or ()) and route.path != "/api/v1/live"]:
        for url in sorted(urls_of(route, anna)):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                answer = bert.request(method, url, content=b"x" if method == "PUT" else None)
                assert answer.status_code < 500, (method, url, answer.text)
                for secret in anna.secrets:
                    named = unquote(str(answer.request.url))
                    assert secret in named or secret not in answer.text, (method, url, answer.text)
                if any(word in url for word in ("home", "proc", "sys")):
                    assert answer.status_code in REFUSED | {405}, (method, url, answer.text)
        assert_untouched(anna)


def test_no_route_of_another_api_reaches_what_is_another_keys(gateway: GatewayServer, anna: Anna) -> None:
    upload = {"file": ("notes.txt", SECRET.encode())}
    file = anna.http.post("/v1/files", files=upload, data={"purpose": "user_data"}).json()["id"]
    said = {"model": "null", "input": f"her words: {SECRET}", "store": True}
    response = anna.http.post("/v1/responses", json=said).json()["id"]
    names = [
        f"/home/keys/{anna.id}", f"/home/keys/{anna.id}/secret.txt", f"../home/keys/{anna.id}/secret.txt",
        f"/home/keys/{anna.id}/files/{file}", "/proc/sessions", "/sys/journal", anna.context, anna.lease, anna.session,
    ]  # fmt: skip
    bert = gateway.client()
    for path, methods in document(all_routes())["paths"].items():
        if path.startswith(("/api/v1/", "/openapi", "/dashboard")) and not path.startswith("/api/v1/store"):
            continue
        for url in {re.sub(r"\{\w+\}", name, path) for name in (file, response, *names)}:
            for method in methods:
                for name in names if "{" not in path and method != "get" else names[:1]:
                    body = {
                        "model": name, "name": name, "input": "x", "prompt": "x", "query": "x", "documents": ["x"],
                        "messages": [{"role": "user", "content": "x"}], "text_1": "x", "text_2": "x", "tokens": [1],
                        "training_file": file, "lora_name": "null", "lora_path": name, "max_tokens": 1,
                        "previous_response_id": response, "path": name, "source": name, "stream": False,
                    }  # fmt: skip
                    answer = bert.request(method, url, json=body)
                    told = (method, url, body, answer.status_code, answer.text)
                    assert answer.status_code < 500 or answer.status_code == 501, told
                    for secret in anna.secrets:
                        assert secret in f"{url} {body}" or secret not in answer.text, told
    assert_untouched(anna)
    assert anna.http.get(f"/v1/files/{file}/content").text == SECRET
    assert SECRET in anna.http.get(f"/v1/responses/{response}").text


def assert_untouched(anna: Anna) -> None:
    """All that is Anna's is as she left it."""
    assert anna.http.get("/api/v1/files/home/me/secret.txt").text == SECRET
    for name in (anna.context, anna.lease):
        assert anna.http.post("/api/v1/stat_object", json={"handle": name}).is_success


def test_an_admin_sees_everybodys(gateway: GatewayServer, anna: Anna) -> None:
    http = gateway.client(gateway.key("admin"))
    assert http.get(f"/api/v1/files/home/keys/{anna.id}/secret.txt").text == SECRET
    for name in (anna.context, anna.lease, anna.session):
        assert http.post("/api/v1/stat_object", json={"handle": name}).is_success
    assert http.get("/api/v1/stat/proc/sessions").is_success
    told = http.get("/api/v1/journal?limit=10000&level=debug").text
    assert anna.session in told


def test_a_key_for_some_models_finds_no_others(gateway: GatewayServer, anna: Anna) -> None:
    http = gateway.client(gateway.key("infer", "read", "load", "manage", models=["org/*"]))
    assert [info["name"] for info in http.get("/api/v1/models").json()["value"]] == []
    assert [entry["path"] for entry in http.get("/api/v1/list/models").json()["value"]] == ["/models/org"]
    text = {"type": "text", "text": "x"}
    for call, body in (
        ("infer", {"model": "null", "input": text}), ("stat_object", {"handle": "model:null"}),
        ("load_model", {"path": "/models/null"}), ("unload_model", {"model": "null"}),
        ("stat_path", {"path": "/models/null"}), ("remove_path", {"path": "/models/null"}),
    ):  # fmt: skip
        assert http.post(f"/api/v1/{call}", json=body).status_code == 404, call
    assert http.post("/api/v1/infer", json={"model": "org/third", "input": text}).is_success


def test_every_route_has_a_scope_and_a_method() -> None:
    assert len(ROUTES) > 30
    for route in all_routes():
        assert isinstance(route, Route) and route.methods, route
        scope = scope_of(route)
        assert scope in SCOPES or is_public(route.path), route.path


def test_no_route_answers_without_a_key_or_without_its_scope(gateway: GatewayServer) -> None:
    nobody = gateway.client("")
    others = {scope: gateway.client(gateway.key(*sorted(SCOPES - {scope, "admin"}))) for scope in SCOPES}
    for route in ROUTES:
        url = re.sub(r"\{\w+(:\w+)?\}", "x", route.path)
        scope = scope_of(route)
        assert scope is not None
        for method in sorted((route.methods or set()) - {"HEAD"}):
            assert nobody.request(method, url).status_code == 401, url
            refused = others[scope].request(method, url)
            assert refused.status_code == 403 and refused.json()["error"]["fields"]["missing"] == scope, url

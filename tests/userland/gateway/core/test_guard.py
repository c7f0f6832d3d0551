"""What surrounds every request: keys and scopes on every route, limits, ids, errors in one form."""

from __future__ import annotations

import http.client
import json
import re

import pytest
from gateway_server import GatewayServer, serving
from starlette.routing import Route
from system.kernel_process import KernelProcess

from llmos.userland.gateway.core.app import all_routes
from llmos.userland.gateway.core.guard import Guard
from llmos.userland.gateway.core.routing import Table, scope_of
from llmos.userland.gateway.core.scopes import SCOPES, is_public

CHAT = {"model": "null", "messages": [{"role": "user", "content": "hi"}]}


def requests() -> list[tuple[str, str, str]]:
    """Method, path and scope of every route."""
    found = []
    for route in all_routes():
        assert isinstance(route, Route) and route.methods, route
        path = re.sub(r"{[^}]*}", "x", route.path)
        found += [(method, path, scope_of(route) or "") for method in sorted(route.methods - {"HEAD"})]
    return found


def test_every_route_has_a_scope_or_is_public() -> None:
    assert len(requests()) > 40
    for method, path, scope in requests():
        assert (scope in SCOPES) != is_public(path), f"{method} {path}"


def test_every_route_needs_a_key(gateway: GatewayServer) -> None:
    client = gateway.client("")
    wrong = gateway.client("llmos_aaaaaaaa_" + "x" * 43)
    for method, path, scope in requests():
        if scope:
            for refused in (client, wrong):
                answer = refused.request(method, path)
                assert answer.status_code == 401, f"{method} {path}"
                said = answer.json()["error"]  # one sentence in the APIs that tell no more
                assert "key" in said if isinstance(said, str) else said["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"


def test_every_route_needs_its_scope(gateway: GatewayServer) -> None:
    by_scope = {scope: gateway.client(gateway.key(*(SCOPES - {scope, "admin"}))) for scope in SCOPES - {"admin"}}
    admin = gateway.client(gateway.key("infer"))
    for method, path, scope in requests():
        if scope:
            answer = by_scope.get(scope, admin).request(method, path)
            assert answer.status_code == 403, f"{method} {path}: {answer.text}"
            assert scope in answer.text


def test_a_revoked_key_is_refused_at_once(gateway: GatewayServer) -> None:
    text = gateway.key("read")
    client = gateway.client(text)
    assert client.get("/v1/models").status_code == 200

    async def revoke() -> None:
        gateway.gateway.keys.revoke(text.split("_")[1])

    gateway.run(revoke())
    assert client.get("/v1/models").status_code == 401


def test_a_key_is_kept_to_its_models(gateway: GatewayServer) -> None:
    client = gateway.client(gateway.key("infer", "read", models=("oth*",)))
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["other"]
    for name in ("null", "/models/null", "org/third"):
        answer = client.post("/v1/chat/completions", json={**CHAT, "model": name})
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"
    assert client.post("/v1/chat/completions", json={**CHAT, "model": "other"}).status_code == 200


def test_a_wrong_name_tells_a_key_nothing_of_what_is_not_for_it(gateway: GatewayServer) -> None:
    asked = {"url": "/api/v1/stat_path", "json": {"path": "/models/nothing1"}}
    kept = gateway.client(gateway.key("infer", "read", models=["nothing*"])).post(**asked)
    whole = gateway.client(gateway.key("infer", "read")).post(**asked)
    assert (kept.status_code, whole.status_code) == (404, 404)
    assert kept.json()["error"]["message"] == "nothing of that name exists, or it is not for this key"
    assert whole.json()["error"]["message"] != kept.json()["error"]["message"]


def test_ids_and_traces_are_echoed(gateway: GatewayServer) -> None:
    client = gateway.client()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"x-request-id": "mine-1", "traceparent": trace}
    answer = client.post("/v1/chat/completions", json={**CHAT, "brand_new": 1}, headers=headers)
    assert answer.headers["x-request-id"] == "mine-1" and answer.headers["x-llmos-request"].startswith("r-")
    assert answer.headers["traceparent"][:36] == trace[:36] and answer.headers["traceparent"] != trace
    assert answer.headers["x-llmos-ignored"] == "brand_new"
    refused = client.get("/nowhere", headers={"x-request-id": "not ok"})
    assert refused.headers["x-request-id"].startswith("req-") and refused.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status", "code"),
    [
        ("GET", "/nowhere", b"", "", 404, "unknown_route"),
        ("GET", "/v1/chat/completions/", b"", "", 404, "unknown_route"),
        ("DELETE", "/v1/chat/completions", b"", "", 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions", b"{", "application/json", 400, "bad_argument"),
        ("POST", "/v1/chat/completions", b"[" * 100_000, "application/json", 400, "bad_argument"),
        ("POST", "/v1/chat/completions", b"", "application/json", 400, "bad_argument"),
        ("POST", "/v1/chat/completions", b"\xff", "application/json", 400, "bad_argument"),
        ("POST", "/v1/chat/completions", b"{}", "multipart/form-data", 415, "unsupported_media_type"),
        ("POST", "/v1/files", b"{}", "application/json", 415, "unsupported_media_type"),
    ],
)
def test_what_is_wrong_with_a_request(
    gateway: GatewayServer, method: str, path: str, body: bytes, kind: str, status: int, code: str
) -> None:
    answer = gateway.client().request(method, path, content=body, headers={"content-type": kind} if kind else {})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code) and error["message"]
    assert set(error) == {"message", "type", "param", "code", "fields", "reasons"}
    assert ("allow" in answer.headers) == (status == 405)


def test_a_body_has_a_limit(gateway_kernel: KernelProcess) -> None:
    with serving(gateway_kernel, body_bytes=1000, header_bytes=2000) as server:
        client = server.client()
        small = client.post("/v1/chat/completions", json=CHAT)
        large = client.post("/v1/chat/completions", json={**CHAT, "user": "x" * 4_000_000})
        assert small.status_code == 200 and large.status_code == 413
        assert large.json()["error"]["code"] == "body_too_large"
        heads = client.get("/health/live", headers={"x-long": "y" * 1900})
        assert heads.status_code == 431 and heads.json()["error"]["code"] == "headers_too_large"
        upload = client.post("/v1/files", data={"purpose": "batch"}, files={"file": b"z" * 5000})
        assert upload.status_code == 200, upload.text


def test_limits_of_a_key(gateway: GatewayServer) -> None:
    client = gateway.client(gateway.key("read", requests_per_minute=2))
    answers = [client.get("/version") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded" and int(answers[2].headers["retry-after"]) >= 1


def test_the_files_of_the_dashboard_count_for_no_key(gateway: GatewayServer) -> None:
    client = gateway.client(gateway.key("read", requests_per_minute=1))
    for path in ("/dashboard", *["/dashboard/static/app.js"] * 3):
        assert client.get(path).status_code == 200
    assert [client.get("/version").status_code for _ in range(2)] == [200, 429]


def test_the_time_that_a_load_takes_is_no_overhead(gateway: GatewayServer) -> None:
    guard = Guard(gateway.gateway, Table([]))
    state = {"route": "/for/this/test", "kernel_s": 1.0, "load_s": 3.0, "request_id": "x", "trace": None}
    guard._account({"method": "GET", "path": "/"}, state, 200, 4.5)
    text = gateway.client(gateway.key("read")).get("/metrics").text
    assert 'llmos_gateway_overhead_seconds_sum{route="/for/this/test"} 0.5' in text


def test_tokens_per_minute_are_the_kernels(gateway: GatewayServer) -> None:
    client = gateway.client(gateway.key("infer", tokens_per_minute=5))
    answers = [client.post("/v1/chat/completions", json=CHAT).status_code for _ in range(4)]
    assert answers[0] == 200 and answers[-1] == 429


def test_a_page_of_another_site_may_call_only_when_it_is_named(gateway_kernel: KernelProcess) -> None:
    asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
    with serving(gateway_kernel, origins=["https://app.example"]) as server:
        client = server.client("")
        allowed = client.options("/v1/chat/completions", headers=asks)
        assert allowed.status_code == 204 and allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in allowed.headers
        other = client.options("/v1/chat/completions", headers={**asks, "origin": "https://evil.example"})
        assert other.status_code == 401 and "access-control-allow-origin" not in other.headers
        told = server.client().get("/v1/models", headers={"origin": "https://app.example"})
        assert told.headers["access-control-allow-origin"] == "https://app.example"


def test_by_default_no_other_page_may_call(gateway: GatewayServer) -> None:
    asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
    answer = gateway.client("").options("/v1/chat/completions", headers=asks)
    assert answer.status_code == 401 and "access-control-allow-origin" not in answer.headers


def test_this_machine_without_a_key_where_the_settings_say_so(gateway_kernel: KernelProcess) -> None:
    with serving(gateway_kernel, anonymous="local") as server:
        client = server.client("")
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert client.get("/v1/files").status_code == 403
        assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 401
        assert client.get("/v1/models", headers={"origin": "http://evil.example"}).status_code == 401
        assert client.get("/v1/models", headers={"origin": server.url}).status_code == 200
        for site, status in (("cross-site", 401), ("same-site", 401), ("same-origin", 200), ("none", 200)):
            assert client.get("/v1/models", headers={"sec-fetch-site": site}).status_code == status
        wrong = client.get("/v1/models", headers={"authorization": "Bearer llmos_wrong"})
        assert wrong.status_code == 401
        server.forget()


def test_two_keys_do_not_share_what_is_theirs(gateway: GatewayServer) -> None:
    mine, other = gateway.client(), gateway.client()
    kept = mine.post("/v1/files", data={"purpose": "batch"}, files={"file": b"secret"}).json()["id"]
    response = mine.post("/v1/responses", json={"model": "null", "input": "x"}).json()["id"]
    for path in (f"/v1/files/{kept}", f"/v1/files/{kept}/content", f"/v1/responses/{response}"):
        assert mine.get(path).status_code == 200 and other.get(path).status_code == 404
    assert other.delete(f"/v1/files/{kept}").status_code == 404
    assert other.get("/v1/files").json()["data"] == []


def test_pipelined_requests_are_answered_in_their_order(gateway: GatewayServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.connect()
    assert connection.sock is not None
    connection.sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    text = b""
    while text.count(b'"live"') < 3:
        text += connection.sock.recv(4096)
    assert text.count(b"200 OK") == 3
    connection.close()


def test_a_line_of_the_log_has_the_ids(gateway_kernel: KernelProcess, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "llmos.gateway"), serving(gateway_kernel, log="all") as server:
        server.client().post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "find-me"})
        server.client("").get("/v1/models")
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "llmos.gateway"]
    assert lines[0]["request"] == "find-me" and lines[0]["kernel"].startswith("r-") and lines[0]["status"] == 200
    assert lines[1]["status"] == 401 and "key" in lines[1]["error"] and "hi" not in json.dumps(lines[0])

"""Keys over HTTP, and what a key knows of itself."""

from __future__ import annotations

import time

from gateway_server import GatewayServer


def test_an_admin_makes_lists_and_revokes_keys(gateway: GatewayServer) -> None:
    root = gateway.client(gateway.key("admin"))
    body = {"name": "ci", "scopes": ["infer", "read"], "models": ["null"], "expires_s": 60, "requests_per_minute": 9}
    answer = root.post("/api/v1/keys", json=body)
    made = answer.json()["value"]
    assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
    assert (
        made["user"] == "test"
        and 50 < made["expires"] - time.time() < 70
        and made["limits"]["requests_per_minute"] == 9
    )
    mine = gateway.client(made["key"])
    assert mine.get("/api/v1/whoami").json() == {
        "key": made["id"], "user": "test", "scopes": ["infer", "read"], "models": ["null"],
        "limits": made["limits"], "home": "/home/me", "anonymous": False,
    }  # fmt: skip
    listed = {key["id"]: key for key in root.get("/api/v1/keys").json()["value"]}
    assert listed[made["id"]]["state"] == "valid" and made["key"] not in root.get("/api/v1/keys").text
    assert root.delete(f"/api/v1/keys/{made['id']}").json()["value"]["state"] == "revoked"
    assert mine.get("/api/v1/whoami").status_code == 401


def test_what_is_wrong_with_a_key_is_told(gateway: GatewayServer) -> None:
    root = gateway.client(gateway.key("admin"))
    for body, status, name in (
        ({}, 400, "name"), ({"name": ""}, 400, "name"), ({"name": "a", "scopes": ["all"]}, 400, "scopes"),
        ({"name": "a", "expires_s": -1}, 400, "expires"), ({"name": "a", "expires_s": 1e300}, 400, "expires"),
        ({"name": "a", "scope": ["infer"]}, 400, "body"), ({"name": "a", "concurrent": -1}, 400, "concurrent"),
    ):  # fmt: skip
        answer = root.post("/api/v1/keys", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, name), answer.text
    assert root.delete("/api/v1/keys/nobody").status_code == 404
    root.post("/api/v1/keys", json={"name": "twice"})
    assert root.post("/api/v1/keys", json={"name": "twice"}).status_code == 409


def test_only_admins_have_to_do_with_keys(gateway: GatewayServer) -> None:
    http = gateway.client()
    assert http.get("/api/v1/keys").status_code == 403
    assert http.post("/api/v1/keys", json={"name": "mine", "scopes": ["admin"]}).status_code == 403
    assert http.delete("/api/v1/keys/x").status_code == 403


def test_an_admin_knows_that_it_may_everything(gateway: GatewayServer) -> None:
    told = gateway.client(gateway.key("admin")).get("/api/v1/whoami").json()
    assert told["scopes"] == ["admin", "files", "infer", "load", "manage", "read", "tune"]


def test_a_key_over_its_requests_per_minute_is_told_when_to_come_back(gateway: GatewayServer) -> None:
    http = gateway.client(gateway.key("read", requests_per_minute=2))
    answers = [http.get("/api/v1/whoami") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    error = answers[2].json()["error"]
    assert error["type"] == "rate_limit_error" and error["fields"]["what"] == "requests_per_minute"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 31


def test_a_key_over_its_tokens_per_minute_is_told_when_to_come_back(gateway: GatewayServer) -> None:
    gateway.client().post("/api/v1/load_model", json={"path": "/models/null"})
    http = gateway.client(gateway.key("infer", tokens_per_minute=3))
    body = {"model": "null", "input": {"type": "text", "text": "one two three four five"}}
    assert http.post("/api/v1/infer", json=body).is_success
    answer = http.post("/api/v1/infer", json=body)
    assert answer.status_code == 429 and answer.json()["error"]["fields"]["what"] == "tokens_per_minute"
    assert int(answer.headers["retry-after"]) >= 1
    # Another key has its own.
    assert gateway.client(gateway.key("infer", tokens_per_minute=3)).post("/api/v1/infer", json=body).is_success


def test_an_expired_key_is_no_key(gateway: GatewayServer) -> None:
    text = gateway.key("read", expires=time.time() - 1, now=time.time() - 10)
    answer = gateway.client(text).get("/api/v1/whoami")
    assert answer.status_code == 401 and "Bearer" in answer.headers["www-authenticate"]

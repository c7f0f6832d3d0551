"""Alive, ready, and ready for one model: the truth."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

from gateway_server import GatewayServer, kernel_for_gateway, serving


def test_ready(gateway: GatewayServer) -> None:
    client = gateway.client()
    assert client.get("/health").json() == client.get("/health/ready").json() == {
        "status": "ready", "devices": {"null0": "ready"},
    }  # fmt: skip
    assert client.get("/version").json() == {"version": "0.1.0", "protocol": 1}


def test_ready_for_a_model_as_long_as_it_serves() -> None:
    with kernel_for_gateway() as kernel, serving(kernel) as server:
        client = server.client()
        assert client.get("/health/ready?model=nothing").status_code == 404
        stored = client.get("/health/ready?model=other")
        assert stored.status_code == 503 and "first request" in stored.json()["error"]["message"]
        client.post("/v1/completions", json={"model": "other", "prompt": "x"})
        awake = client.get("/health/ready?model=other").json()
        assert awake == {"status": "ready", "model": "other", "state": "awake", "device": "null0"}
        server.run(control(server, "sleep", "model", "other"))
        assert client.get("/health/ready?model=other").json()["state"] == "asleep"
        server.run(control(server, "stop", "driver", "null0"))
        away = client.get("/health/ready?model=other")
        assert away.status_code == 503 and "retry-after" in away.headers
        assert "null0" in away.json()["error"]["message"]
        none = client.get("/health/ready")
        assert none.status_code == 503 and "null0 is stop" in none.json()["error"]["message"]
        server.forget()


def test_a_kernel_that_is_killed_while_it_is_asked_is_not_ready() -> None:
    with kernel_for_gateway() as kernel, serving(kernel) as server, ThreadPoolExecutor(1) as pool:
        client = server.client()
        assert client.get("/health/ready").status_code == 200
        kernel.signal(signal.SIGSTOP)
        asked = pool.submit(client.get, "/health/ready")
        while not server.gateway.state.running:
            assert not asked.done()
        kernel.signal(signal.SIGKILL)
        kernel.ended()
        away = asked.result()
        assert away.status_code == 503 and away.headers["retry-after"] == "1"
        server.forget()
        kernel.clean()


async def control(server: GatewayServer, action: str, kind: str, name: str) -> None:
    own = await server.gateway.sessions.own()
    found = await own.find(kind, name)
    await own.control(found.handle, action)

"""`/api/pull` brings a model of a hub, says how far it is, and ends with its client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fake_hub import COMMIT, FakeHub, hub
from gateway_server import GatewayServer, serving
from system.hub_kernel import FILES, HALF, kernel_with
from system.kernel_process import KernelProcess, eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeHub]:
    with hub(FILES) as fake:
        yield fake


@pytest.fixture(scope="module")
def kernel(fake: FakeHub) -> Iterator[KernelProcess]:
    with kernel_with(fake) as kernel:
        yield kernel


@pytest.fixture
def gateway(kernel: KernelProcess) -> Iterator[GatewayServer]:
    with serving(kernel) as server:
        yield server


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_client_that_leaves_ends_it(gateway: GatewayServer, kernel: KernelProcess, fake: FakeHub) -> None:
    client = gateway.client()
    fake.holds["tokenizer.json"] = HALF
    fake.go.clear()

    def states() -> list[str]:
        return [task["state"] for task in system.call("list_objects", system=system.system, kind="task")]

    try:
        with kernel.client() as system:
            with client.stream("POST", "/api/pull", json={"model": "acme/fox"}) as answer:
                seen = [next(told := answer.iter_lines())]
                while "completed" not in json.loads(seen[-1]):
                    seen.append(next(told, f"the end after {seen}"))
                assert states().count("running") == 1
            eventually(kernel, lambda: "running" not in states(), states)
    finally:
        fake.holds.clear()
        fake.go.set()
    assert client.post("/api/show", json={"model": "acme/fox"}).status_code == 404


def test_a_model_of_the_hub_is_brought_and_answers(gateway: GatewayServer) -> None:
    client = gateway.client()
    first, *between, last = lines(client.post("/api/pull", json={"model": "hf.co/acme/fox"}).text)
    assert (first, last) == ({"status": "pulling manifest"}, {"status": "success"})
    assert all(0 <= line["completed"] <= line["total"] and line["digest"] for line in between)
    assert "acme/fox:latest" in [model["name"] for model in client.get("/api/tags").json()["models"]]
    body = {"model": "acme/fox", "prompt": "abc", "stream": False}
    assert client.post("/api/generate", json=body).json()["response"] == "abc"
    again = client.post("/api/pull", json={"model": "acme/fox", "stream": False})
    assert again.json() == {"status": "success"}


@pytest.mark.parametrize("stream", [True, False])
def test_what_the_hub_does_not_have_is_told(gateway: GatewayServer, stream: bool) -> None:
    answer = gateway.client().post("/api/pull", json={"model": "acme/wolf", "stream": stream})
    told = lines(answer.text)[-1]
    assert set(told) == {"error"} and "acme/wolf" in told["error"]
    assert answer.status_code == (200 if stream else 404)


def test_a_revision_becomes_a_further_version(gateway: GatewayServer) -> None:
    client = gateway.client()
    for name in ("acme/fox", f"acme/fox:{COMMIT}"):
        assert lines(client.post("/api/pull", json={"model": name}).text)[-1] == {"status": "success"}

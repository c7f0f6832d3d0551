"""`/api/embed` and `/api/embeddings`; the null device makes waves of 64 numbers."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_server import GatewayServer


def test_one_text_and_several(gateway: GatewayServer) -> None:
    client = gateway.client()
    one = client.post("/api/embed", json={"model": "null", "input": "abc"}).json()
    two = client.post("/api/embed", json={"model": "null:latest", "input": ["abc", "xyz"], "keep_alive": 60}).json()
    assert len(one["embeddings"]) == 1 and len(one["embeddings"][0]) == 64
    assert len(two["embeddings"]) == 2 and two["embeddings"][0] == one["embeddings"][0] != two["embeddings"][1]
    assert sum(number * number for number in one["embeddings"][0]) == pytest.approx(1, abs=1e-5)
    assert two["model"] == "null:latest" and two["prompt_eval_count"] == 6 and two["total_duration"] > 0
    old = client.post("/api/embeddings", json={"model": "null", "prompt": "abc"}).json()
    assert old == {"embedding": one["embeddings"][0]}


def test_a_part_of_a_vector_has_the_length_1_too(gateway: GatewayServer) -> None:
    (row,) = (
        gateway.client().post("/api/embed", json={"model": "null", "input": "x", "dimensions": 8}).json()["embeddings"]
    )
    assert len(row) == 8 and sum(number * number for number in row) == pytest.approx(1, abs=1e-5)


def test_nothing_to_embed(gateway: GatewayServer) -> None:
    assert gateway.client().post("/api/embed", json={"model": "null", "input": []}).json()["embeddings"] == []


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"model": "none", "input": "x"}, 404, "'none'"),
        ({"input": "x"}, 400, "no model"),
        ({"model": "null"}, 400, "input"),
        ({"model": "null", "input": "x", "dimensions": 65}, 400, "dimensions"),
        ({"model": "null", "input": ["x"] * 3000}, 400, "3000 texts"),
    ],
)
def test_errors(gateway: GatewayServer, body: dict[str, Any], status: int, says: str) -> None:
    answer = gateway.client().post("/api/embed", json=body)
    assert answer.status_code == status and says in answer.json()["error"]

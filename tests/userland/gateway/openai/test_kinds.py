"""Models of other kinds through the API: they rank, judge and embed. Tiny ones of random weights on the CPU."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_server import Booted, GatewayServer, serving
from kinds_home import system_of_kinds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def module_gateway() -> Iterator[GatewayServer]:
    with contextlib.ExitStack() as stack:
        home, site = (Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="t"))) for _ in range(2))
        system = stack.enter_context(system_of_kinds(home, site))
        yield stack.enter_context(serving(Booted(system, home), moderation_model="emotions"))


def test_rerank(gateway: GatewayServer) -> None:
    body = {"model": "ranker", "query": "what jumps?", "documents": ["the fox jumps", {"text": "a lazy dog"}, "tokens"]}
    made = gateway.client().post("/v1/rerank", json={**body, "top_n": 2, "return_documents": True}).json()
    scores = [result["relevance_score"] for result in made["results"]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True) and made["results"][0]["document"]["text"]
    pairs = {"model": "ranker", "text_1": "what jumps?", "text_2": ["the fox jumps", "a lazy dog", "tokens"]}
    scored = gateway.client().post("/v1/score", json=pairs).json()["data"]
    assert max(each["score"] for each in scored) == scores[0]


def test_moderations(gateway: GatewayServer) -> None:
    made = gateway.client().post("/v1/moderations", json={"input": ["the lazy dog", {"type": "text", "text": "fox"}]})
    one, two = made.json()["results"]
    assert set(one["category_scores"]) == set(two["categories"]) and len(one["category_scores"]) == 3
    assert sum(one["category_scores"].values()) == pytest.approx(1.0, abs=1e-3)


def test_embeddings(gateway: GatewayServer) -> None:
    made = gateway.client().post("/v1/embeddings", json={"model": "embedder", "input": ["the fox", "the dog"]}).json()
    assert [len(each["embedding"]) for each in made["data"]] == [32, 32]
    wrong = gateway.client().post("/v1/rerank", json={"model": "embedder", "query": "x", "documents": ["y"]})
    assert wrong.status_code == 501

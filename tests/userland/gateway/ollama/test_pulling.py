"""`/api/pull`: what names mean, what is here already, and what cannot be brought. Without a network."""

from __future__ import annotations

import json

import pytest
from gateway_server import GatewayServer

from llmos.syscalls.errors import BadState, Exists, NoSpace
from llmos.syscalls.types import Event, Reason, TaskResult
from llmos.userland.gateway.ollama.pulling import _check, progress, source_of


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tiny", ("", "", "/models/tiny")),
        ("tiny:latest", ("", "", "/models/tiny")),
        ("org/x", ("hf:org/x", "", "/models/org/x")),
        ("hf.co/org/x:v2", ("hf:org/x", "v2", "/models/org/x")),
        ("huggingface.co/org/x:latest", ("hf:org/x", "", "/models/org/x")),
    ],
)
def test_what_a_name_means(name: str, source: tuple[str, str, str]) -> None:
    assert source_of(name) == source


def test_what_is_here_already_is_a_success(gateway: GatewayServer) -> None:
    client = gateway.client()
    told = [json.loads(line) for line in client.post("/api/pull", json={"model": "null"}).text.splitlines()]
    assert [line["status"] for line in told] == ["pulling manifest", "success"]
    assert client.post("/api/pull", json={"name": "org/third", "stream": False}).json() == {"status": "success"}


def test_a_name_without_a_folder_comes_from_nowhere(gateway: GatewayServer) -> None:
    answer = gateway.client().post("/api/pull", json={"model": "llama3"})
    assert answer.status_code == 404 and "ORG/NAME" in answer.json()["error"]


def test_who_may_pull(gateway: GatewayServer) -> None:
    assert gateway.client(gateway.key("infer", "read")).post("/api/pull", json={"model": "null"}).status_code == 403
    kept = gateway.client(gateway.key("manage", models=["other"]))
    assert kept.post("/api/pull", json={"model": "null"}).status_code == 404


def test_progress_is_told_as_ollama_does() -> None:
    event = Event(kind="task", about="t", at=1, fields={"stage": "download", "done": 5, "total": 10, "unit": "bytes"})
    assert progress(event) == {"status": "download", "digest": "download", "total": 10, "completed": 5}


def test_how_a_job_ended() -> None:
    _check(TaskResult(id="t", state="done", value={"path": "/models/x"}))
    _check(TaskResult(id="t", state="failed", value={"error": Exists("is there").to_wire()}))
    with pytest.raises(NoSpace):
        _check(TaskResult(id="t", state="failed", value={"error": NoSpace("full").to_wire()}))
    with pytest.raises(BadState, match="killed"):
        _check(TaskResult(id="t", state="failed", reasons=[Reason(code="x", text="it was killed")]))
    with pytest.raises(BadState, match="cancelled"):
        _check(TaskResult(id="t", state="cancelled"))

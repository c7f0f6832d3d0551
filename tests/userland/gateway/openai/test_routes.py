"""The routes over HTTP, where the client of `test_client` does not go."""

from __future__ import annotations

import io
import json
import wave
from typing import Any

import pytest
from gateway_server import GatewayServer

from llmos.userland.gateway.core.caller import Caller
from llmos.userland.gateway.core.store import Job

CHAT = {"model": "null", "messages": [{"role": "user", "content": "hi"}]}


def post(gateway: GatewayServer, path: str, body: object, **how: Any) -> Any:
    return gateway.client().post(path, json=body, **how)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/completions", {"model": "null", "prompt": "x", "suffix": "y"}, 501, "suffix"),
        ("/v1/completions", {"model": "null", "prompt": ["a", "b"], "stream": True}, 501, "several prompts"),
        ("/v1/completions", {"model": "null", "prompt": [["x"]]}, 400, "prompt"),
        ("/v1/completions", {"model": "null", "prompt": []}, 400, "prompts"),
        ("/v1/embeddings", {"model": "null", "input": []}, 400, "input"),
        ("/v1/embeddings", {"model": "null", "input": [{"a": 1}]}, 400, "input"),
        ("/v1/embeddings", {"model": "null", "input": "x", "dimensions": 65}, 400, "dimensions"),
        ("/v1/rerank", {"model": "null", "query": "x", "documents": ["y"]}, 501, "does not do rerank"),
        ("/v1/rerank", {"model": "null", "query": "x", "documents": [{"title": "y"}]}, 400, "documents[0]"),
        ("/score", {"model": "null", "text_1": "x", "text_2": "y"}, 501, "does not do rerank"),
        ("/v1/moderations", {"input": "x"}, 501, "moderation_model"),
        ("/v1/audio/speech", {}, 501, "speaks"),
        ("/v1/images/generations", {}, 501, "draws"),
        ("/tokenize", {"model": "null", "prompt": "x"}, 501, "tokenize"),
        ("/tokenize", {"model": "null"}, 400, "prompt or messages"),
        ("/v1/responses", {"model": "null", "input": "x", "background": True}, 501, "background"),
        ("/v1/responses", {"model": "null", "input": ""}, 400, "no input"),
        ("/v1/responses", {"model": "null", "input": [{"type": "computer_call"}]}, 501, "computer_call"),
        ("/v1/fine_tuning/jobs", {"model": "null", "training_file": "file-none"}, 404, "no file"),
        ("/v1/unload_lora_adapter", {"lora_name": "null"}, 404, "no such adapter"),
        ("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "/home/keys/bob/x"}, 403, "admin"),
        ("/v1/chat/completions", {**CHAT, "keep_alive": "soon"}, 400, "keep_alive"),
        ("/v1/chat/completions", {**CHAT, "top_logprobs": 5}, 400, "needs logprobs"),
        ("/v1/chat/completions", {**CHAT, "priority": 101}, 400, "priority"),
        ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url",
            "image_url": {"url": "http://10.0.0.1/x.png"}}]}]}, 400, "nothing is fetched"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(gateway: GatewayServer, path: str, body: object, status: int, said: str) -> None:
    answer = post(gateway, path, body)
    assert answer.status_code == status and said in answer.json()["error"]["message"], answer.text


def test_priority_and_keep_alive_are_taken(gateway: GatewayServer) -> None:
    body = {**CHAT, "priority": 7, "keep_alive": "10m", "user": "ada"}
    answer = post(gateway, "/v1/chat/completions", body)
    assert answer.status_code == 200 and answer.headers["x-llmos-ignored"] == "user"
    shared = gateway.client(gateway.key("infer")).post("/v1/chat/completions", json=body)
    assert shared.status_code == 200 and shared.headers["x-llmos-ignored"] == "user, keep_alive"
    streamed = post(gateway, "/v1/chat/completions", {**body, "stream": True, "keep_alive": 0})
    assert streamed.text.endswith("data: [DONE]\n\n")


def test_an_error_after_the_head_ends_the_stream_without_done(gateway: GatewayServer) -> None:
    text = "!oom @step 3; hello"
    body = {"model": "null", "messages": [{"role": "user", "content": text}], "stream": True}
    answer = post(gateway, "/v1/chat/completions", body)
    assert answer.status_code == 200 and "[DONE]" not in answer.text
    last = json.loads(answer.text.strip().rpartition("data: ")[2])
    assert last["error"]["code"] == "no_device_memory"
    response = post(gateway, "/v1/responses", {"model": "null", "input": text, "stream": True})
    assert "response.failed" in response.text


def test_an_error_before_the_first_token_has_its_status(gateway: GatewayServer) -> None:
    body = {"model": "null", "messages": [{"role": "user", "content": "!oom; x"}], "stream": True}
    assert post(gateway, "/v1/chat/completions", body).status_code == 507


def sound() -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0" * 1600)
    return made.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        ({"model": "null"}, 501, "does not do automatic-speech-recognition"),
        ({}, 400, "no model"),
        ({"model": "null", "response_format": "pdf"}, 400, "response_format"),
    ],
)
def test_sounds(gateway: GatewayServer, data: dict[str, str], status: int, said: str) -> None:
    files = {"file": ("x.wav", sound(), "audio/wav")}
    answer = gateway.client().post("/v1/audio/transcriptions", data=data, files=files)
    assert answer.status_code == status and said in answer.json()["error"]["message"]
    assert gateway.client().post("/v1/audio/translations", data=data, files=files).status_code == status


def test_files_that_cannot_be(gateway: GatewayServer) -> None:
    client = gateway.client()
    file = {"file": ("../../etc/passwd", b"x")}
    assert client.post("/v1/files", data={"purpose": "fun"}, files=file).status_code == 400
    assert client.post("/v1/files", data={"purpose": "batch"}, files={"other": b"x"}).status_code == 400
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/files", content=b"nonsense", headers=broken).status_code == 400
    kept = client.post("/v1/files", data={"purpose": "batch"}, files=file).json()
    assert kept["llmos"]["path"] == f"/home/me/files/{kept['id']}/passwd"
    assert client.get(f"/api/v1/files{kept['llmos']['path']}").content == b"x"


def test_a_tuning_job_shows_its_task(gateway: GatewayServer) -> None:
    """Also one whose task is none that tunes: here it is a program."""
    text = gateway.key()
    key = text.split("_")[1]
    caller = Caller(key, "u", f"key-{key}", frozenset({"tune"}))

    async def begin() -> None:
        system = await gateway.gateway.sessions.system(caller)
        task = await system.spawn(["sleep", "600"])
        body = '{"model": "null", "training_file": "file-x"}'
        gateway.gateway.store.add_job(Job(f"ftjob-{key}", key, task.info.id, body, 1.0))

    gateway.run(begin())
    client = gateway.client(text)
    path = f"/v1/fine_tuning/jobs/ftjob-{key}"
    assert (
        client.get(path).json()["status"] == "running" and len(client.get("/v1/fine_tuning/jobs").json()["data"]) == 1
    )
    assert client.post(f"{path}/pause").json()["status"] == "paused"
    assert client.post(f"{path}/resume").json()["status"] == "running"
    assert client.get(f"{path}/checkpoints").json()["data"] == []
    assert client.get(f"{path}/events").json()["object"] == "list"
    assert client.post(f"{path}/cancel").json()["status"] == "cancelled"
    assert gateway.client().get(path).status_code == 404

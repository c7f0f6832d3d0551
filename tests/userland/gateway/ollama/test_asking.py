"""`/api/chat` and `/api/generate` before a real kernel; the null device answers with the last message."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from gateway_server import GatewayServer

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Chunk, Grammar, ModelInfo
from llmos.userland.gateway.ollama.asking import Held, grammar_of, sampling_of
from llmos.userland.gateway.ollama.bodies import Asked, Options
from llmos.userland.gateway.ollama.writing import Writer
from llmos.userland.gateway.openai.tools import toolbox

INFO = ModelInfo(handle=1, id="m", path="/models/x", version="1", device="d", architecture="A", context=100)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
NO_TOOLS = toolbox(None, None)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "null", "messages": [{"role": "user", "content": text}], **more}


def test_a_chat_streams_lines(gateway: GatewayServer) -> None:
    answer = gateway.client().post("/api/chat", json=chat("hello", options={"num_predict": 3}))
    assert answer.headers["content-type"] == "application/x-ndjson"
    *pieces, last = lines(answer.text)
    assert "".join(piece["message"]["content"] for piece in pieces) == "hel"
    assert not any(piece["done"] for piece in pieces)
    assert last["done"] is True and last["done_reason"] == "length" and last["eval_count"] == 3
    assert last["prompt_eval_count"] == 5 and last["total_duration"] > last["eval_duration"] > 0


def test_a_whole_chat(gateway: GatewayServer) -> None:
    answer = gateway.client().post("/api/chat", json=chat("hello", stream=False)).json()
    assert answer["message"] == {"role": "assistant", "content": "hello"}
    assert answer["done"] is True and answer["done_reason"] == "stop" and answer["model"] == "null"


def test_text_is_gone_on_with(gateway: GatewayServer) -> None:
    client = gateway.client()
    body = {"model": "null:latest", "prompt": "abc", "system": "be brief", "options": {"stop": "c"}}
    *pieces, last = lines(client.post("/api/generate", json=body).text)
    assert "".join(piece["response"] for piece in pieces) == "ab" and last["done_reason"] == "stop"
    whole = client.post("/api/generate", json={"model": "null", "prompt": "abc", "raw": True, "stream": False}).json()
    assert whole["response"] == "abc" and whole["model"] == "null"


def test_a_key_that_may_only_ask_has_no_say_in_how_long_a_model_stays(gateway: GatewayServer) -> None:
    client = gateway.client(gateway.key("infer", "read"))
    for path, body in (("chat", {}), ("generate", {"prompt": "x"}), ("embed", {"input": "x"})):
        answer = client.post(f"/api/{path}", json={"model": "null", "stream": False, "keep_alive": 0, **body})
        assert answer.status_code == 200 and "keep_alive" in answer.headers["x-llmos-ignored"]
    assert client.get("/health/ready?model=null").json()["state"] == "awake"


def test_an_empty_request_loads_and_lets_sleep(gateway: GatewayServer) -> None:
    client = gateway.client()
    assert client.post("/api/chat", json={"model": "other"}).json()["done_reason"] == "load"
    names = [model["name"] for model in client.get("/api/ps").json()["models"]]
    assert "other:latest" in names
    asleep = client.post("/api/generate", json={"model": "other", "keep_alive": 0}).json()
    assert asleep["done_reason"] == "unload" and asleep["response"] == ""
    assert client.get("/health/ready?model=other").json()["state"] == "asleep"
    assert client.post("/api/chat", json={"model": "other", "keep_alive": "10m"}).json()["done_reason"] == "load"
    nobody = client.post("/api/generate", json={"model": "org/third", "keep_alive": 0}).json()
    assert nobody["done_reason"] == "unload"
    assert "third:latest" not in [model["name"] for model in client.get("/api/ps").json()["models"]]


def test_a_call_of_a_tool_is_read(gateway: GatewayServer) -> None:
    client = gateway.client()
    said = '{"name": "look", "arguments": {"at": "sky"}}'
    whole = client.post("/api/chat", json=chat(said, tools=[TOOL], stream=False)).json()
    (call,) = whole["message"]["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": {"at": "sky"}} and whole["message"]["content"] == ""
    *pieces, last = lines(client.post("/api/chat", json=chat(said, tools=[TOOL])).text)
    (only,) = pieces
    assert only["message"]["tool_calls"][0]["function"]["name"] == "look" and last["done"] is True
    plain = lines(client.post("/api/chat", json=chat("no call", tools=[TOOL])).text)
    assert "".join(piece["message"]["content"] for piece in plain) == "no call"


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("chat", {"model": "none", "messages": [{"role": "user", "content": "x"}]}, 404, "'none'"),
        ("chat", {"messages": [{"role": "user", "content": "x"}]}, 400, "no model"),
        ("chat", {"model": "null", "messages": [{"role": "king", "content": "x"}]}, 400, "role"),
        ("generate", {"model": "null", "prompt": "x", "format": "yaml"}, 400, "format"),
        ("generate", {"model": "null", "prompt": "x", "suffix": "y"}, 501, "suffix"),
        ("generate", {"model": "null", "prompt": "x", "keep_alive": "soon"}, 400, "keep_alive"),
        ("generate", {"model": "null", "prompt": "!oom; x"}, 507, "memory"),
    ],
)
def test_errors_are_one_sentence(gateway: GatewayServer, path: str, body: Any, status: int, says: str) -> None:
    answer = gateway.client().post(f"/api/{path}", json=body)
    assert answer.status_code == status and set(answer.json()) == {"error"} and says in answer.json()["error"]


def test_json_is_json_whatever_curl_calls_it(gateway: GatewayServer) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b'{"model": "null", "prompt": "abc", "stream": false}'
    assert gateway.client().post("/api/generate", content=body, headers=form).json()["response"] == "abc"
    body = b'{"model": "null", "messages": [{"role": "user", "content": "abc"}]}'
    answer = gateway.client().post("/v1/chat/completions", content=body, headers=form).json()
    assert answer["choices"][0]["message"]["content"] == "abc"


def test_an_error_in_the_middle_is_a_line(gateway: GatewayServer) -> None:
    *_, last = lines(gateway.client().post("/api/chat", json=chat("!oom @step 3; hello")).text)
    assert set(last) == {"error"}


def test_keys_and_scopes(gateway: GatewayServer) -> None:
    unknown = gateway.client("").post("/api/chat", json=chat("x"))
    assert unknown.status_code == 401 and isinstance(unknown.json()["error"], str)
    assert isinstance(gateway.client().get("/api/chat").json()["error"], str)  # 405
    refused = gateway.client(gateway.key("read")).post("/api/chat", json=chat("x"))
    assert refused.status_code == 403 and set(refused.json()) == {"error"}


def test_pictures_become_parts(gateway: GatewayServer) -> None:
    picture = base64.b64encode(b"\x89PNG....").decode()
    body = {"model": "null", "prompt": "what?", "images": [picture], "stream": False}
    answer = gateway.client().post("/api/generate", json=body)
    assert answer.status_code in (400, 501)  # the null device sees nothing
    wrong = gateway.client().post("/api/generate", json={**body, "images": ["not base64!"]})
    assert wrong.status_code == 400 and "base64" in wrong.json()["error"]


# ---- options


def test_options_become_sampling() -> None:
    options = Options(
        num_predict=7, temperature=0.5, top_k=3, top_p=0.4, min_p=0.1, seed=9, stop=["x"], repeat_penalty=1.2
    )
    made = sampling_of(Asked(model="x", options=options), NO_TOOLS, INFO)
    assert (made.max_tokens, made.temperature, made.top_k, made.top_p, made.min_p) == (7, 0.5, 3, 0.4, 0.1)
    assert (made.seed, made.stop, made.repetition_penalty, made.grammar) == (9, ["x"], 1.2, None)


@pytest.mark.parametrize(("given", "made"), [(None, 100), (-1, 100), (-2, 100), (0, 0)])
def test_as_many_tokens_as_there_is_room_for(given: int | None, made: int) -> None:
    assert sampling_of(Asked(model="x", options=Options(num_predict=given)), NO_TOOLS, INFO).max_tokens == made


def test_a_negative_seed_draws_one() -> None:
    assert sampling_of(Asked(model="x", options=Options(seed=-1)), NO_TOOLS, INFO).seed is None


def test_formats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert grammar_of(None) is None and grammar_of("") is None
    assert grammar_of("json") == Grammar(json_schema={"type": "object"}) and grammar_of(schema) == Grammar(
        json_schema=schema
    )
    with pytest.raises(BadArgument, match="json, or a JSON schema"):
        grammar_of("xml")


def test_what_only_looked_like_a_call_is_told() -> None:
    held = Held(Writer("x", chat=True, load_ns=0), toolbox([TOOL], None))
    assert held.text(Chunk(text='{"na')) == b""
    assert held.text(Chunk(text='me": 5}')) == b""
    assert lines(held.end().decode())[0]["message"]["content"] == '{"name": 5}'
    free = Held(Writer("x", chat=True, load_ns=0), toolbox([TOOL], None))
    assert [lines(free.text(Chunk(text=t)).decode())[0]["message"]["content"] for t in ("so ", "{")] == ["so ", "{"]
    assert free.end() == b""

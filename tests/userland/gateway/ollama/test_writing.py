"""Answers in Ollama's form."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from llmos.syscalls.errors import Busy, NotFound
from llmos.syscalls.types import Choice, Chunk, Inference, Timing, Usage
from llmos.userland.gateway.ollama.writing import Writer, error_line, error_response, time_text
from llmos.userland.gateway.openai.tools import Said, ToolCall

INFERENCE = Inference(
    id="r",
    task="text-generation",
    model_version="1",
    choices=[Choice(index=0, text="ab", tokens=[1, 2], reason="stop")],
    usage=Usage(prompt_tokens=3, new_tokens=2),
    timing=Timing(queued=10, first=30, total=100),
)


def test_a_line_of_text_is_what_an_encoder_would_write() -> None:
    text = 'a "b"\n\u00e9'
    for chat in (True, False):
        made = Writer("x", chat=chat, load_ns=0).text(Chunk(text=text))
        assert made.endswith(b"\n") and made.count(b"\n") == 1
        found = json.loads(made)
        assert found["model"] == "x" and found["done"] is False
        assert datetime.fromisoformat(found["created_at"]).tzinfo is not None
        if chat:
            assert found["message"] == {"role": "assistant", "content": text}
        else:
            assert found["response"] == text
    assert Writer("x", chat=True, load_ns=0).text(Chunk(text="")) == b""


def test_the_last_line_says_what_it_took() -> None:
    end = Writer("x", chat=False, load_ns=7).end(INFERENCE)
    assert end.pop("created_at") and end == {
        "model": "x",
        "response": "",
        "done": True,
        "done_reason": "stop",
        "total_duration": 107,
        "load_duration": 7,
        "prompt_eval_count": 3,
        "prompt_eval_duration": 20,
        "eval_count": 2,
        "eval_duration": 70,
    }


def test_without_a_first_token_all_time_is_for_the_answer() -> None:
    whole = Inference(id="r", task="t", model_version="1", timing=Timing(queued=10, total=100))
    end = Writer("x", chat=False, load_ns=0).end(whole)
    assert (end["prompt_eval_duration"], end["eval_duration"], end["done_reason"]) == (0, 90, "stop")


def test_calls_have_their_arguments_as_objects() -> None:
    said = Said("", [ToolCall("f", '{"a":1}', "call_1")], "tool_calls")
    end = Writer("x", chat=True, load_ns=0).end(INFERENCE, said)
    assert end["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": {"a": 1}}}],
    }


def test_an_error_is_one_sentence() -> None:
    answer = error_response(Busy("too much", retry_after_ms=1500))
    assert (answer.status_code, answer.body, answer.headers["retry-after"]) == (503, b'{"error":"too much"}', "2")
    assert error_line(NotFound("gone")) == b'{"error":"gone"}\n'


@pytest.mark.parametrize(("seconds", "text"), [(0, "1970-01-01T00:00:00Z"), (1.5, "1970-01-01T00:00:01.500000Z")])
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text

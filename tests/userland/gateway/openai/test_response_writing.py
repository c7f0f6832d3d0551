"""Responses, whole and as events."""

from __future__ import annotations

import json

from llmos.syscalls.errors import Busy
from llmos.syscalls.types import Inference, Usage
from llmos.userland.gateway.openai.response_writing import ResponseWriter
from llmos.userland.gateway.openai.tools import Said, ToolCall

DONE = Inference(id="r", task="t", model_version="1", usage=Usage(prompt_tokens=5, cached_tokens=2, new_tokens=3))


def test_a_whole_response() -> None:
    writer = ResponseWriter("m", {"instructions": "be kind", "metadata": {"a": "b"}, "store": False})
    made = writer.whole(Said("hello", [], "stop"), DONE)
    assert (made["status"], made["instructions"], made["metadata"], made["store"]) == (
        "completed", "be kind", {"a": "b"}, False,
    )  # fmt: skip
    assert made["output"][0]["content"][0]["text"] == "hello" and made["usage"]["total_tokens"] == 8
    assert made["usage"]["input_tokens_details"] == {"cached_tokens": 2}
    cut = writer.whole(Said("hel", [], "length"), DONE)
    assert cut["status"] == "incomplete" and cut["incomplete_details"] == {"reason": "max_output_tokens"}
    called = writer.whole(Said("", [ToolCall("f", "{}", "call_1")], "tool_calls"), DONE)
    assert [item["type"] for item in called["output"]] == ["function_call"]
    assert called["output"][0]["call_id"] == "call_1" and called["output"][0]["id"] == "fc_call_1"


def test_events_are_numbered() -> None:
    writer = ResponseWriter("m", {})
    events = [writer.event("response.created", response={}), writer.event("x.y", delta="é"), writer.failed(Busy("no"))]
    texts = [event.decode().split("\n") for event in events]
    assert [text[0] for text in texts] == ["event: response.created", "event: x.y", "event: response.failed"]
    data = [json.loads(text[1].removeprefix("data: ")) for text in texts]
    assert [each["sequence_number"] for each in data] == [0, 1, 2]
    assert data[2]["response"]["error"] == {"code": "busy", "message": "no"}

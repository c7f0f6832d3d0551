"""Items of the Responses API as messages."""

from __future__ import annotations

import pytest

from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.userland.gateway.openai.response_items import messages_of


def test_a_text_is_what_the_user_says() -> None:
    assert messages_of("hi") == [{"role": "user", "content": "hi"}] and messages_of("") == []


def test_items() -> None:
    assert messages_of(
        [
            {"role": "developer", "content": "short"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "rain?"}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "wet"},
            {"type": "function_call_output", "call_id": "c1", "output": 5},
        ]
    ) == [
        {"role": "developer", "content": "short"},
        {"role": "user", "content": [{"type": "input_text", "text": "rain?"}]},
        {
            "role": "assistant", "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "wet"},
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
    ]  # fmt: skip


def test_what_is_not_served() -> None:
    with pytest.raises(NotSupported):
        messages_of([{"type": "computer_call"}])
    with pytest.raises(BadArgument) as raised:
        messages_of([{"type": "function_call", "call_id": "c1", "name": 5}])
    assert raised.value.name == "input[0].name"

"""From messages of the API to what the kernel takes."""

from __future__ import annotations

import base64

import pytest

from llmos.syscalls.errors import BadArgument, TooLarge
from llmos.syscalls.types import Audio, Chat, Image, Parts, Text
from llmos.userland.gateway.openai import messages as module
from llmos.userland.gateway.openai.messages import chat_input, check_answers

PICTURE = base64.b64encode(b"\x89PNG").decode()
SEEN = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}


def chat(*messages: dict[str, object]) -> list[dict[str, object]]:
    made = chat_input(list(messages))
    assert isinstance(made, Chat)
    return made.messages


def test_texts_become_one_string() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert chat({"role": "developer", "content": "be kind"}, {"role": "user", "content": parts, "name": "ada"}) == [
        {"role": "system", "content": "be kind"}, {"role": "user", "content": "one\ntwo", "name": "ada"},
    ]  # fmt: skip
    assert chat({"role": "assistant", "content": None}) == [{"role": "assistant", "content": ""}]


def test_earlier_calls_have_their_arguments_as_objects() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    odd = {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "not json"}}
    none = {"id": "c3", "type": "function", "function": {"name": "f"}}
    asked, told = chat(
        {"role": "assistant", "content": None, "tool_calls": [call, odd, none]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    )
    assert [each["function"]["arguments"] for each in asked["tool_calls"]] == [{"a": 1}, "not json", {}]
    assert told == {"role": "tool", "tool_call_id": "c1", "content": "2"}
    assert chat({"role": "function", "content": "x"})[0]["role"] == "tool"


def test_media_of_one_message_become_parts() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"}}
    made = chat_input([{"role": "user", "content": [{"type": "text", "text": "what?"}, SEEN, sound]}])
    assert made == Parts(parts=[Text(text="what?"), Image(data=b"\x89PNG"), Audio(data=b"RIFF")])
    item = {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}"}
    assert chat_input([{"role": "user", "content": [item]}]) == Parts(parts=[Image(data=b"\x89PNG")])


def test_media_of_several_messages_stay_in_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [{"role": "system", "content": "look"}, {"role": "user", "content": [SEEN]}]
    assert chat(*messages)[1]["content"] == [{"type": "image", "data": b"\x89PNG"}]
    monkeypatch.setattr(module, "CHAT_MEDIA_BYTES", 3)
    with pytest.raises(TooLarge):
        chat(*messages)


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ({"role": "robot", "content": "x"}, "messages[0].role"),
        ({"content": "x"}, "messages[0].role"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": ["x"]}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "smell"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0].image_url"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "https://x/y.png"}]},
            "messages[0].content[0].image_url",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "file:///etc/passwd"}]},
            "messages[0].content[0].image_url",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "data:text/plain,x"}]},
            "messages[0].content[0].image_url",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "!!"}]},
            "messages[0].content[0].image_url",
        ),
        ({"role": "assistant", "tool_calls": [{"id": "x"}]}, "messages[0].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": "x"}, "messages[0].tool_calls"),
    ],
)
def test_what_is_wrong_is_named(message: dict[str, object], name: str) -> None:
    with pytest.raises(BadArgument) as raised:
        chat_input([message])
    assert raised.value.name == name


def test_the_answer_of_a_tool_says_of_which_call() -> None:
    check_answers([{"role": "tool", "tool_call_id": "c1", "content": "x"}])
    with pytest.raises(BadArgument) as raised:
        check_answers([{"role": "user", "content": "x"}, {"role": "tool", "content": "x"}])
    assert raised.value.name == "messages[1].tool_call_id"

"""Function tools: what the model is shown, what it is made to say, and how its calls are read."""

from __future__ import annotations

import json

import pytest

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Choice, Chunk, Inference
from llmos.userland.gateway.openai.tools import call_schema, may_be_call, parsed, toolbox
from llmos.userland.gateway.openai.writing import ChatWriter

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "tells it", "parameters": CITY}},
    {"type": "function", "function": {"name": "time"}},
]
NAMES = frozenset({"weather", "time"})


def test_without_tools_there_is_nothing() -> None:
    for box in (toolbox(None, None), toolbox([], "auto"), toolbox(TOOLS, "none")):
        assert (box.shown, box.names, box.grammar) == ([], frozenset(), None)
        assert box.read('{"name": "weather", "arguments": {}}', "stop").calls == []


def test_auto_leaves_the_model_free() -> None:
    box = toolbox(TOOLS, None)
    assert box.grammar is None and box.names == NAMES
    assert box.shown[1]["function"]["parameters"] == {"type": "object", "properties": {}}


def test_required_and_named_are_enforced() -> None:
    required, named = toolbox(TOOLS, "required"), toolbox(TOOLS, {"type": "function", "function": {"name": "weather"}})
    assert required.grammar is not None and len(required.grammar.json_schema["anyOf"]) == 2
    assert named.grammar is not None and named.grammar.json_schema == call_schema([named.shown[0]["function"]])
    assert named.grammar.json_schema["properties"] == {"name": {"const": "weather"}, "arguments": CITY}
    assert toolbox(TOOLS, {"type": "function", "name": "time"}).grammar is not None


@pytest.mark.parametrize(
    ("tools", "choice", "name"),
    [
        ([{"type": "browser"}], None, "tools[0].type"),
        ([{"type": "function", "function": {"name": "a b"}}], None, "tools[0].function.name"),
        ([{"type": "function", "function": {"name": "a", "parameters": [1]}}], None, "tools[0].function.parameters"),
        (TOOLS, "sometimes", "tool_choice"),
        (TOOLS, {"type": "function", "function": {"name": "nothing"}}, "tool_choice"),
        ([], "required", "tool_choice"),
    ],
)
def test_what_cannot_be(tools: list[dict[str, object]], choice: object, name: str) -> None:
    with pytest.raises(BadArgument) as raised:
        toolbox(tools, choice)
    assert raised.value.name == name


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("plain", "plain", []),
        ('<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>', "", [("time", {})]),
        (
            'Let me see. <tool_call>{"name": "time", "arguments": {}}</tool_call>\n'
            '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>',
            "Let me see.",
            [("time", {}), ("weather", {"city": "Oslo"})],
        ),
        ('[TOOL_CALLS][{"name": "time", "arguments": {}}]', "", [("time", {})]),
        ('{"name": "weather", "parameters": {"city": "Rome"}}', "", [("weather", {"city": "Rome"})]),
        ('{"type": "function", "function": {"name": "time", "arguments": {}}}', "", [("time", {})]),
        ('{"name": "unknown", "arguments": {}}', '{"name": "unknown", "arguments": {}}', []),
        ('{"city": "Rome"}', '{"city": "Rome"}', []),
        ("[1, 2]", "[1, 2]", []),
        ("<tool_call>{broken", "<tool_call>{broken", []),
        ('{"name": "time", "arguments": 5}', '{"name": "time", "arguments": 5}', []),
    ],
)  # fmt: skip
def test_calls_are_read(text: str, said: str, calls: list[tuple[str, dict[str, str]]]) -> None:
    found, made = parsed(text, NAMES)
    assert found == said and [(call.name, json.loads(call.arguments)) for call in made] == calls


@pytest.mark.parametrize(
    ("text", "may"), [("", True), ("<tool", True), ("<tool_call>{", True), ("<b>", False), ("{", True), ("Hi", False)]
)
def test_what_could_become_a_call(text: str, may: bool) -> None:
    assert may_be_call(text) is may


def streamed(text: str, choice: object, size: int, reason: str = "stop") -> list[dict[str, object]]:
    """The deltas of an answer that comes in pieces of `size` characters."""
    stream = toolbox(TOOLS, choice).stream(ChatWriter("m"), 1)
    out = b"".join(stream.text(Chunk(text=text[at : at + size])) for at in range(0, len(text), size))
    out += stream.end(Inference(id="r", task="t", model_version="1", choices=[
        Choice(index=0, text=text, tokens=[], reason=reason)
    ]))  # fmt: skip
    lines = [line.removeprefix("data: ") for line in out.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line)["choices"][0] for line in lines]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("city", ["Rome", '}} \\" {', "日本"])
def test_an_enforced_call_streams_its_name_and_then_its_arguments(size: int, city: str) -> None:
    arguments = json.dumps({"city": city}, ensure_ascii=False)
    choices = streamed(f'{{"name": "weather", "arguments": {arguments} }}\n', "required", size)
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert calls[0]["function"]["name"] == "weather" and calls[0]["id"].startswith("call_")
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": city}
    assert choices[-1]["finish_reason"] == "tool_calls"


def test_an_enforced_call_that_was_cut_says_so() -> None:
    assert streamed('{"name": "weather", "arguments": {"ci', "required", 5, "length")[-1]["finish_reason"] == "length"


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_free_answer_streams_text_at_once_and_calls_at_the_end(size: int) -> None:
    text = streamed("Hello you", "auto", size)
    assert "".join(choice["delta"].get("content", "") for choice in text) == "Hello you"
    assert text[-1]["finish_reason"] == "stop"
    called = streamed('<tool_call>{"name": "time", "arguments": {}}</tool_call>', "auto", size)
    assert called[0]["delta"]["tool_calls"][0]["function"] == {"name": "time", "arguments": "{}"}
    assert called[-1]["finish_reason"] == "tool_calls" and len(called) == 2
    json_text = streamed('{"just": "json"}', "auto", size)
    assert json_text[0]["delta"] == {"content": '{"just": "json"}'} and json_text[-1]["finish_reason"] == "stop"

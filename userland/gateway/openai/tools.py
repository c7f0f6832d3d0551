"""Function tools: shown to the model by its template, and read again from what it says. Pure.

With `tool_choice` required, or the name of a function, a grammar makes the answer one call whose arguments fit the
function's schema. With auto, calls are read from the forms that models are trained for: Hermes and Qwen
(`<tool_call>{...}</tool_call>`), Mistral (`[TOOL_CALLS][...]`), Llama (a JSON object alone).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Chunk, Grammar, Inference

from .bodies import finish_reason
from .writing import ChatWriter

HERMES, MISTRAL = "<tool_call>", "[TOOL_CALLS]"
_HERMES_END = "</tool_call>"
_TIGHT = {"x-guidance": {"whitespace_flexible": False}}
"""No blanks but the usual ones, as llguidance has it: a weak model would write them for ever."""
_MARKS = (HERMES, MISTRAL, "{", "[{")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}\Z")
_ARGUMENTS = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')


@dataclass(frozen=True)
class ToolCall:
    """One call; `arguments` is JSON text."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{os.urandom(12).hex()}")

    def shown(self) -> dict[str, Any]:
        """As the API has it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class Said:
    """An answer, read."""

    text: str
    calls: list[ToolCall]
    finish: str

    def message(self) -> dict[str, Any]:
        """The assistant's message."""
        made: dict[str, Any] = {"role": "assistant", "content": self.text if self.text or not self.calls else None}
        made["refusal"] = None
        if self.calls:
            made["tool_calls"] = [call.shown() for call in self.calls]
        return made


class Toolbox:
    """The tools of one request.

    Args:
        shown: what the template gets.
        names: of the functions that may be called.
        grammar: enforces a call; None leaves the model free.
    """

    def __init__(self, shown: list[dict[str, Any]], names: frozenset[str], grammar: Grammar | None) -> None:
        self.shown = shown
        self.names = names
        self.grammar = grammar

    def read(self, text: str, reason: str) -> Said:
        """What an answer says and calls."""
        said, calls = parsed(text, self.names) if self.names else (text, [])
        return Said(said, calls, "tool_calls" if calls else finish_reason(reason))

    def stream(self, writer: ChatWriter, choices: int) -> TextStream:
        """What turns the chunks of this request into events."""
        if self.grammar is not None:
            return EnforcedStream(writer, choices)
        return FreeStream(writer, choices, self) if self.names else TextStream(writer)


class TextStream:
    """Chunks of an answer without tools."""

    def __init__(self, writer: ChatWriter) -> None:
        self._writer = writer
        self.text = writer.text

    def end(self, inference: Inference) -> bytes:
        """What comes after the last chunk."""
        return self._writer.end(inference)


class FreeStream(TextStream):
    """The model may call or not: what could be the beginning of a call is held back until that is known."""

    def __init__(self, writer: ChatWriter, choices: int, tools: Toolbox) -> None:
        super().__init__(writer)
        self._tools = tools
        self._held: list[str] = [""] * choices
        self._free = [False] * choices
        self.text = self._text

    def _text(self, chunk: Chunk) -> bytes:
        at = chunk.index
        if self._free[at]:
            return self._writer.text(chunk)
        self._held[at] += chunk.text
        if may_be_call(self._held[at]):
            return b""
        self._free[at] = True
        text, self._held[at] = self._held[at], ""
        return self._writer.text(msgspec.structs.replace(chunk, text=text))

    def end(self, inference: Inference) -> bytes:
        parts, finish = [], []
        for choice in inference.choices:
            said = self._tools.read(self._held[choice.index], choice.reason)
            finish.append(said.finish)
            if said.text:
                parts.append(self._writer.delta(choice.index, {"content": said.text}))
            for number, call in enumerate(said.calls):
                parts.append(self._writer.delta(choice.index, {"tool_calls": [{"index": number, **call.shown()}]}))
        return b"".join(parts) + self._writer.end(inference, finish)


class EnforcedStream(TextStream):
    """The grammar makes each choice one call: its name comes first, then its arguments as they are written."""

    def __init__(self, writer: ChatWriter, choices: int) -> None:
        super().__init__(writer)
        self._held: list[str] = [""] * choices
        self._named = [False] * choices
        self.text = self._text

    def _text(self, chunk: Chunk) -> bytes:
        at = chunk.index
        self._held[at] += chunk.text
        out = b""
        if not self._named[at]:
            found = _ARGUMENTS.match(self._held[at])
            if found is None:
                return b""
            self._named[at] = True
            self._held[at] = self._held[at][found.end() :]
            name = msgspec.json.decode(found.group(1), type=str)
            first = {"index": 0, **ToolCall(name, "").shown()}
            out = self._writer.delta(at, {"tool_calls": [first]})
        return out + self._arguments(at, keep=True)

    def _arguments(self, at: int, keep: bool) -> bytes:
        """What is held, but for the brace that ends the call itself and the blanks around it, which may come at any
        time."""
        text = self._held[at]
        body = text.rstrip()
        cut = len(body) - 1 if body.endswith("}") else len(body)
        said = text[: len(text[:cut].rstrip())] if cut < len(body) else body
        if keep:
            self._held[at] = text[len(said) :]
        if not said:
            return b""
        return self._writer.delta(at, {"tool_calls": [{"index": 0, "function": {"arguments": said}}]})

    def end(self, inference: Inference) -> bytes:
        finish = ["tool_calls" if choice.reason != "length" else "length" for choice in inference.choices]
        return self._writer.end(inference, finish)


def toolbox(tools: list[dict[str, Any]] | None, choice: str | dict[str, Any] | None) -> Toolbox:
    """The tools that a body gives.

    Raises:
        BadArgument: a tool that is no function, a choice that is not known.
    """
    functions = [_function(tool, f"tools[{at}]") for at, tool in enumerate(tools or ())]
    names = frozenset(function["name"] for function in functions)
    wanted = _wanted(choice, names)
    if wanted == "none" or not functions:
        return Toolbox([], frozenset(), None)
    shown = [{"type": "function", "function": function} for function in functions]
    if wanted == "auto":
        return Toolbox(shown, names, None)
    called = [function for function in functions if wanted in ("required", function["name"])]
    return Toolbox(shown, names, Grammar(json_schema=call_schema(called)))


def _function(tool: dict[str, Any], place: str) -> dict[str, Any]:
    function = tool.get("function", tool)
    if tool.get("type", "function") != "function" or not isinstance(function, dict):
        kind = tool.get("type")
        raise BadArgument(f"{place}.type is {kind!r}; function is offered", name=f"{place}.type", want="function")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        raise BadArgument(f"{place} has no good name: {name!r}", name=f"{place}.function.name", got=repr(name)[:80])
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise BadArgument(f"{place}.function.parameters is no JSON schema", name=f"{place}.function.parameters")
    return {"name": name, "description": str(function.get("description") or ""), "parameters": parameters}


def _wanted(choice: str | dict[str, Any] | None, names: frozenset[str]) -> str:
    """none, auto, required, or the name of a function."""
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            want = "none, auto, required or a function"
            raise BadArgument(f"tool_choice is {choice!r}; expected {want}", name="tool_choice", got=choice, want=want)
        if choice == "required" and not names:
            raise BadArgument("tool_choice is required, but there are no tools", name="tool_choice", got=choice)
        return choice
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, dict) else None
    if name not in names:
        known = ", ".join(sorted(names)) or "none"
        raise BadArgument(f"tool_choice names {name!r}; the tools are {known}", name="tool_choice", got=repr(name)[:80])
    return str(name)


def call_schema(functions: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of one call of one of the functions."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": function["name"]}, "arguments": function["parameters"]},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in functions
    ]
    return {**_TIGHT, **(calls[0] if len(calls) == 1 else {"anyOf": calls})}


def may_be_call(text: str) -> bool:
    """Whether a text is, or could become, a call: it begins like one."""
    text = text.lstrip()
    return any(text.startswith(mark) or mark.startswith(text) for mark in _MARKS)


def parsed(text: str, names: frozenset[str]) -> tuple[str, list[ToolCall]]:
    """The text beside the calls, and the calls. What looks like a call of an unknown function is text."""
    if HERMES in text:
        before, _, rest = text.partition(HERMES)
        found = [_calls(part.partition(_HERMES_END)[0], names) for part in rest.split(HERMES)]
        if all(found):
            return before.strip(), [call for calls in found for call in calls]
    elif MISTRAL in text:
        before, _, rest = text.partition(MISTRAL)
        if calls := _calls(rest, names):
            return before.strip(), calls
    elif text.lstrip()[:1] in ("{", "[") and (calls := _calls(text, names)):
        return "", calls
    return text, []


def _calls(text: str, names: frozenset[str]) -> list[ToolCall]:
    """The calls in JSON text: an object or a list of them; none when one of them is something else."""
    try:
        given = msgspec.json.decode(text.strip())
    except msgspec.DecodeError:
        return []
    made = [_call(each, names) for each in (given if isinstance(given, list) else [given])]
    calls = [call for call in made if call is not None]
    return calls if len(calls) == len(made) else []


def _call(given: Any, names: frozenset[str]) -> ToolCall | None:
    if not isinstance(given, dict):
        return None
    given = given.get("function", given) if isinstance(given.get("function"), dict) else given
    name = given.get("name")
    arguments = given.get("arguments", given.get("parameters", {}))
    if name not in names or not isinstance(arguments, (dict, str)):
        return None
    written = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return ToolCall(str(name), written)

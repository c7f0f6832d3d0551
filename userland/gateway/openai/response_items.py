"""From the items of the Responses API to messages of a chat. Pure."""

from __future__ import annotations

from typing import Any

from llmos.syscalls.errors import BadArgument, NotSupported

_IGNORED = ("reasoning", "item_reference")


def messages_of(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages that an input means: a text is what the user says.

    Raises:
        BadArgument: an item that cannot be.
        NotSupported: an item of a built-in tool.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if given else []
    made: list[dict[str, Any]] = []
    for at, item in enumerate(given):
        made += _item(item, f"input[{at}]")
    return made


def _item(item: dict[str, Any], place: str) -> list[dict[str, Any]]:
    kind = item.get("type", "message")
    if kind == "message":
        return [{"role": item.get("role"), "content": item.get("content")}]
    if kind == "function_call":
        function = {"name": _text(item, "name", place), "arguments": _text(item, "arguments", place)}
        call = {"id": _text(item, "call_id", place), "type": "function", "function": function}
        return [{"role": "assistant", "content": None, "tool_calls": [call]}]
    if kind == "function_call_output":
        output = item.get("output")
        said = output if isinstance(output, (str, list)) else str(output)
        return [{"role": "tool", "tool_call_id": _text(item, "call_id", place), "content": said}]
    if kind in _IGNORED:
        return []
    raise NotSupported(f"{place}.type is {str(kind)[:40]!r}, which is not offered", why="messages and functions only")


def _text(item: dict[str, Any], name: str, place: str) -> str:
    found = item.get(name)
    if not isinstance(found, str):
        raise BadArgument(f"{place}.{name} is no text", name=f"{place}.{name}", got=type(found).__name__)
    return found

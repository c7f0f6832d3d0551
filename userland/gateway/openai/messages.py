"""From the messages of the API to what the kernel takes: a chat for the model's template, or parts with media."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from llmos.syscalls.errors import BadArgument, TooLarge
from llmos.syscalls.types import Audio, Chat, Image, Input, Parts, Text, Video

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
CHAT_MEDIA_BYTES = 8 << 20
"""Pictures and sounds inside a chat of several messages travel in the message to the kernel, which has a limit."""

_MEDIA = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "video_url": "video",
}
_TEXTS = ("text", "input_text", "output_text", "refusal")


def chat_input(
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None = None,
    template_options: dict[str, Any] | None = None,
) -> Input:
    """The input that the messages mean. Media in a single message become parts, whose bytes may be of any size.

    Raises:
        BadArgument: a role or content that cannot be; a URL, which is never fetched.
        TooLarge: media of more bytes than a chat may have.
    """
    made = [_message(message, f"messages[{at}]") for at, message in enumerate(messages)]
    media = [part for message in made if isinstance(message["content"], list) for part in message["content"]]
    if media and len(made) == 1 and not tools:
        return Parts(parts=[_part(part) for part in media])
    size = sum(len(part.get("data", b"")) for part in media)
    if size > CHAT_MEDIA_BYTES:
        raise TooLarge(
            f"pictures and sounds have {size} bytes; a chat of several messages takes {CHAT_MEDIA_BYTES}",
            limit=CHAT_MEDIA_BYTES, got=size,
        )  # fmt: skip
    return Chat(messages=made, tools=tools or [], template_options=template_options or {})


def check_answers(messages: list[dict[str, Any]]) -> None:
    """Raises BadArgument: the answer of a tool that does not say which call it answers."""
    for at, message in enumerate(messages):
        if message.get("role") == "tool" and not isinstance(message.get("tool_call_id"), str):
            name = f"messages[{at}].tool_call_id"
            raise BadArgument(f"{name} is missing", name=name, want="the id of the call")


def _message(message: dict[str, Any], place: str) -> dict[str, Any]:
    role = message.get("role")
    if role not in ROLES:
        known = ", ".join(ROLES)
        raise BadArgument(f"{place}.role is {role!r}; expected {known}", name=f"{place}.role", got=repr(role)[:40])
    if message.get("content") is None and role != "assistant":
        raise BadArgument(f"{place}.content is missing", name=f"{place}.content", want="a text, or a list of parts")
    made: dict[str, Any] = {
        "role": "system" if role == "developer" else "tool" if role == "function" else role,
        "content": _content(message.get("content"), f"{place}.content"),
    }
    for name in ("name", "tool_call_id", "reasoning_content"):
        if isinstance(message.get(name), str):
            made[name] = message[name]
    if calls := message.get("tool_calls"):
        made["tool_calls"] = _calls(calls, f"{place}.tool_calls")
    return made


def _content(content: Any, place: str) -> str | list[dict[str, Any]]:
    """Text alone as one string, which all templates take; with media, a list of items."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise BadArgument(f"{place} is neither a text nor a list of parts", name=place, got=type(content).__name__)
    items = [_item(item, f"{place}[{at}]") for at, item in enumerate(content)]
    if all(item["type"] == "text" for item in items):
        return "\n".join(item["text"] for item in items)
    return items


def _item(item: dict[str, Any], place: str) -> dict[str, Any]:
    kind = item.get("type")
    if kind in _TEXTS:
        text = item.get("text", item.get("refusal"))
        if not isinstance(text, str):
            raise BadArgument(f"{place}.text is no text", name=f"{place}.text", got=type(text).__name__)
        return {"type": "text", "text": text}
    if kind in _MEDIA:
        return {"type": _MEDIA[kind], "data": _media(item.get(kind), f"{place}.{kind}", item)}
    want = ", ".join(["text", *_MEDIA])
    raise BadArgument(f"{place}.type is {kind!r}; expected {want}", name=f"{place}.type", got=repr(kind)[:40])


def _media(given: Any, place: str, item: dict[str, Any]) -> bytes:
    if isinstance(given, dict):
        given = given.get("url", given.get("data"))
    elif given is None:
        given = item.get("image_url")
    if not isinstance(given, str):
        raise BadArgument(f"{place} has no data", name=place, want="base64, or a data: URL")
    if given.startswith("data:"):
        head, comma, given = given.partition(",")
        if not comma or not head.endswith(";base64"):
            raise BadArgument(f"{place} is a data: URL without base64", name=place, want="data:image/png;base64,...")
    elif "://" in given[:40]:
        raise BadArgument(
            f"{place} is a URL; nothing is fetched here: send the bytes as a data: URL", name=place, got=given[:80],
            want="data:image/png;base64,...",
        )  # fmt: skip
    try:
        return base64.b64decode(given, validate=True)
    except binascii.Error as error:
        raise BadArgument(f"{place} is not base64: {error}", name=place) from None


def _part(item: dict[str, Any]) -> Text | Image | Audio | Video:
    if item["type"] == "text":
        return Text(text=item["text"])
    kinds: dict[str, type[Image | Audio | Video]] = {"image": Image, "audio": Audio, "video": Video}
    return kinds[item["type"]](data=item["data"])


def _calls(calls: Any, place: str) -> list[dict[str, Any]]:
    """Calls of an earlier answer, their arguments as objects: that is what templates write."""
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise BadArgument(f"{place} is no list of calls", name=place)
    made = []
    for at, call in enumerate(calls):
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadArgument(f"{place}[{at}].function has no name", name=f"{place}[{at}].function")
        made.append({**call, "function": {**function, "arguments": _arguments(function.get("arguments"))}})
    return made


def _arguments(given: Any) -> Any:
    if not isinstance(given, str):
        return given if given is not None else {}
    try:
        return msgspec.json.decode(given)
    except msgspec.DecodeError:
        return given

"""What arrives: the body as JSON checked against a type, with a limit; and the client's leave, which ends its work."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.types import Message, Receive

from llmos.syscalls.errors import BadArgument

from .errors import HttpError

T = TypeVar("T")

IGNORED = "X-LLMOS-Ignored"
"""Header of an answer that names the fields of the body that nobody here knows."""


_MISSING = re.compile(r"missing required field `([^`]+)`")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_DISCARD_BYTES = 256 << 20
_DISCARD_S = 5.0
"""How much, and for how long, is read of a body that is refused."""


class Inbox:
    """The `receive` of one request: counts the body, and cancels the task that serves it when its client leaves.

    Args:
        limit: bytes of the body.
        pause_s: how long the body may pause while it arrives.
    """

    def __init__(self, receive: Receive, limit: int, pause_s: float) -> None:
        self._receive = receive
        self._limit = limit
        self._pause_s = pause_s
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self._count = 0
        self.whole = False
        """All of the body has arrived."""
        self.gone = False
        """The client has left."""
        self.answered = False
        """The whole answer is out: what comes now is the end of the connection or the next request."""

    def allow(self, limit: int) -> None:
        """Let the body be larger, for uploads."""
        self._limit = limit

    async def __call__(self) -> Message:
        if self.whole:
            return {"type": "http.request", "body": b"", "more_body": False}
        try:
            async with asyncio.timeout(self._pause_s):
                message = await self._receive()
        except TimeoutError:
            raise HttpError(408, "timeout_error", "body_timeout", f"no more of the body came for {self._pause_s:g} s",
                            headers={"Connection": "close"}) from None  # fmt: skip
        if message["type"] == "http.disconnect":
            self._left()
            return message
        self._count += len(message.get("body", b""))
        if not message.get("more_body", False):
            self.whole = True
            self._watch = asyncio.get_running_loop().create_task(self._watching())
        if self._count > self._limit:
            raise too_large(self._limit)
        return message

    async def discard(self) -> None:
        """Read on without keeping anything, within bounds: a client answered while it sends may not see the answer."""
        self._limit = sys.maxsize
        with contextlib.suppress(TimeoutError, HttpError):
            async with asyncio.timeout(_DISCARD_S):
                while not self.whole and not self.gone and self._count < _DISCARD_BYTES:
                    await self()

    async def _watching(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        if not self.answered and not self.gone and self._task is not None:
            self.gone = True
            self._task.cancel()

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()


def inbox_of(request: Request) -> Inbox:
    """The inbox of a request."""
    inbox: Inbox = request.scope["state"]["inbox"]
    return inbox


def too_large(limit: int) -> HttpError:
    """The answer to a body beyond the limit."""
    text = f"the body is larger than {limit} bytes, which is the limit"
    return HttpError(413, "invalid_request_error", "body_too_large", text, headers={"Connection": "close"})


async def json_body(request: Request, type: type[T]) -> T:
    """The body as a value of a type.

    Fields that the type does not have are ignored, where the type ignores them, and named in the header `IGNORED` of
    the answer: clients send new fields every month.

    Raises:
        BadArgument: no JSON, or a wrong value; it names the place.
        HttpError: 413 beyond the limit, 415 for a body of another type, from who has no key in a header.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json") and not _says_json(request, kind):
        text = f"the body is {kind}; send application/json"
        raise HttpError(415, "invalid_request_error", "unsupported_media_type", text)
    raw = await request.body()
    try:
        value = msgspec.json.decode(raw or b"{}", type=type)
    except msgspec.ValidationError as error:
        raise _refused(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "a text in it has half a surrogate pair" if _SURROGATE.search(raw) else str(error)
        raise BadArgument(f"the body cannot be read as JSON: {why}", name="body", want="JSON") from None
    ignored = _unknown(raw, type)
    if ignored:
        request.scope["state"]["ignored"] = ignored
    return value


def _says_json(request: Request, kind: str) -> bool:
    """`curl -d` calls JSON a form.

    Who sends a key in a header is no page of another site, which could send a form but no such header. Of others, with
    a cookie or without a key, the type is what keeps those pages out.
    """
    return not kind.startswith("multipart/") and any(name in request.headers for name in ("authorization", "x-api-key"))


def _refused(error: msgspec.ValidationError) -> BadArgument:
    """`Expected `int`, got `str` - at `$.n``: the place, without the root, is the name of the argument."""
    text, _, place = str(error).partition(" - at `")
    key, inside, rest = place.partition("` in `")
    name = (rest if inside else place).removesuffix("`").removeprefix("$").removeprefix(".")
    if inside:
        text = f"a {key}: {text}"
    if missing := _MISSING.search(text):
        name = f"{name}.{missing[1]}".removeprefix(".")
        text = "is missing"
    said = f"{name}: {text}" if name else text
    return BadArgument(said, name=name or "body")


def _unknown(raw: bytes, type: Any) -> list[str]:
    fields = getattr(type, "__struct_fields__", None)
    if fields is None or not raw:
        return []
    given = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    known = {*fields, *getattr(type, "__struct_encode_fields__", ())}
    return [name for name in given if name not in known and name.isascii() and name.isprintable()][:20]


def ignored_header(state: Mapping[str, Any]) -> str:
    """The value of `IGNORED`; empty when there is nothing to tell."""
    return ", ".join(state.get("ignored", ()))[:1000]

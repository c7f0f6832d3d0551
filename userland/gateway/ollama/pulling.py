"""`POST /api/pull`: bring a model into the registry, with its progress as lines.

`hf.co/ORG/NAME[:REVISION]` and `ORG/NAME` come from the hub; a name without a folder is a model of this registry or of
nowhere, since Ollama's own library is in a format of its own. What is here already is not fetched again unless a
revision is named, which becomes a further version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadState, Exists, LlmosError, NotDirectory, NotFound, from_wire
from llmos.syscalls.types import Event, TaskResult, TransformRecipe
from llmos.userland.async_objects import AsyncSystem, AsyncTask

from ..core.body import json_body
from ..core.caller import caller_of, gateway_of
from ..core.errors import FAILURES, model_not_found
from ..core.models import path_of, plain
from ..core.respond import LINES, EventStream, json_response
from ..native.confine import stored_model
from .bodies import LATEST, PullBody, streams
from .writing import error_line, line

HUBS = ("hf.co/", "huggingface.co/")
SUCCESS = {"status": "success"}
_ENDED = ("done", "failed", "cancelled")


class Source(NamedTuple):
    """Where a model comes from and where it goes; without a source it must be here already."""

    source: str
    revision: str
    out: str


def source_of(name: str) -> Source:
    """What the name of a pull means."""
    name = name.removesuffix(LATEST)
    for hub in HUBS:
        if name.lower().startswith(hub):
            name = name[len(hub) :]
            break
    stem, _, revision = name.partition(":")
    return Source(f"hf:{stem}" if "/" in stem else "", revision, path_of(stem))


async def pull(request: Request) -> ASGIApp:
    """Bring a model; a client that leaves cancels it."""
    body = await json_body(request, PullBody)
    source, caller = source_of(body.model or body.name), caller_of(request)
    if not caller.may_use(plain(source.out)):
        raise model_not_found(body.wanted)
    try:
        stored_model(caller, source.out)
    except NotFound:
        raise model_not_found(body.wanted) from None
    system = await gateway_of(request).sessions.system(caller)
    known = not source.revision and await _is_here(system, source.out)
    task = None if known else await _start(system, source, body.wanted)
    if not streams(body.stream):
        if task is not None:
            try:
                _check(await task.wait())
            finally:
                await asyncio.shield(_close(task))
        return json_response(SUCCESS)

    async def close() -> None:
        if task is not None:
            await _close(task)

    return EventStream(_lines(system, task), media_type=LINES, on_close=close)


async def _is_here(system: AsyncSystem, path: str) -> bool:
    try:
        return (await system.stat_path(path)).kind == "model"
    except (NotFound, NotDirectory):
        return False


async def _start(system: AsyncSystem, source: Source, name: str) -> AsyncTask:
    if not source.source:
        raise model_not_found(name, "give ORG/NAME of the hub")
    options: dict[str, Any] = {"revision": source.revision, "replace": True} if source.revision else {}
    return await system.transform([source.source], source.out, TransformRecipe(kind="import", options=options))


async def _lines(system: AsyncSystem, task: AsyncTask | None) -> AsyncIterator[bytes]:
    try:
        yield line({"status": "pulling manifest"})
        if task is not None:
            async with await system.watch(["task"], about=task.info.id) as events:
                if (await task.stat()).state not in _ENDED:
                    async for event in events:
                        if event.fields.get("state") in _ENDED:
                            break
                        if "total" in event.fields:
                            yield line(progress(event))
            _check(await task.wait())
        yield line(SUCCESS)
    except FAILURES as error:
        yield error_line(error)


def progress(event: Event) -> dict[str, Any]:
    """A line of progress; the digest tells one bar of a client from the next."""
    fields = event.fields
    stage = str(fields.get("stage") or "pulling")
    return {"status": stage, "digest": stage, "total": fields.get("total", 0), "completed": fields.get("done", 0)}


def _check(result: TaskResult) -> None:
    """Raises what the job ended with."""
    value = result.value if isinstance(result.value, dict) else {}
    if "error" in value:
        error = from_wire(value["error"])
        if not isinstance(error, Exists):
            raise error
    elif result.state != "done":
        said = result.reasons[-1].text if result.reasons else result.state
        raise BadState(f"the pull ended: {said}", state=result.state)


async def _close(task: AsyncTask) -> None:
    """End the job when it still runs, and give up its handle."""
    try:
        if (await task.stat()).state not in _ENDED:
            await task.cancel()
        await task.close()
    except LlmosError:
        return  # the kernel is gone, and the job with it

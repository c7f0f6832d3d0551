"""What models there are, in Ollama's form: `/api/tags`, `/api/ps`, `/api/show`, `/api/delete`, `/api/version`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llmos.syscalls.errors import NotDirectory, NotFound
from llmos.syscalls.types import ObjectInfo

from ..core.body import json_body
from ..core.caller import caller_of, gateway_of
from ..core.errors import model_not_found
from ..core.models import ListedModel, path_of, plain
from ..core.respond import json_response
from ..native.confine import stored_model
from .bodies import LATEST, Named
from .writing import FOREVER, time_text

_MODALITIES = {"image": "vision", "audio": "audio"}


async def tags(request: Request) -> Response:
    """All models that the key may use, loaded or stored."""
    listed = await gateway_of(request).models.listed(caller_of(request))
    return json_response({"models": [_tag(model) for model in listed]})


async def ps(request: Request) -> Response:
    """The models that are loaded."""
    caller = caller_of(request)
    system = await gateway_of(request).sessions.system(caller)
    loaded = [info for info in await system.models() if caller.may_use(plain(info.name))]
    return json_response({"models": [_process(info) for info in loaded]})


async def show(request: Request) -> Response:
    """One model: what it is and what it can do."""
    body = await json_body(request, Named)
    gateway, caller = gateway_of(request), caller_of(request)
    info = await gateway.models.state(caller, body.wanted)
    fields = info.fields if info is not None else {}
    changed = info.since if info is not None else 0.0
    if not body.wanted or not caller.may_use(plain(body.wanted)):
        raise model_not_found(body.wanted)
    try:
        wanted = path_of(gateway.settings.aliases.get(body.wanted, body.wanted))
        path = str(fields.get("path") or stored_model(caller, wanted))
        entry = await (await gateway.sessions.system(caller)).stat_path(path)
        fields, changed = {**entry.fields, **fields}, entry.mtime
    except (NotFound, NotDirectory):
        if info is None:
            raise model_not_found(body.wanted) from None
    return json_response(
        {
            "modelfile": "",
            "parameters": "",
            "template": str(fields.get("chat_template") or ""),
            "license": str(fields.get("licence") or ""),
            "modified_at": time_text(changed),
            "details": details(fields),
            "model_info": dict(_model_info(fields)),
            "capabilities": list(_capabilities(fields)),
        }
    )


async def delete(request: Request) -> Response:
    """Remove a stored model."""
    body = await json_body(request, Named)
    caller = caller_of(request)
    if not body.wanted or not caller.may_use(plain(body.wanted)):
        raise model_not_found(body.wanted)
    system = await gateway_of(request).sessions.system(caller)
    try:
        await system.remove(stored_model(caller, path_of(body.wanted)))
    except NotFound:
        raise model_not_found(body.wanted) from None
    return Response(status_code=200)


async def version(request: Request) -> Response:
    """The version of the kernel."""
    own = await gateway_of(request).sessions.own()
    return json_response({"version": str((await own.stat()).fields.get("version", ""))})


def details(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The map that Ollama shows of every model."""
    family = str(fields.get("architecture") or "")
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": parameters_text(int(fields.get("parameters") or 0)),
        "quantization_level": str(fields.get("dtype") or ""),
    }


def parameters_text(count: int) -> str:
    """`7.6B`, `494.0M`, `1.2K`."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def digest(path: str, version: str) -> str:
    """64 hexadecimal digits that name a version: clients compare them."""
    return hashlib.sha256(f"{path.partition('@')[0]}@{version}".encode()).hexdigest()


def _named(name: str) -> dict[str, str]:
    shown = name if ":" in name else f"{name}{LATEST}"
    return {"name": shown, "model": shown}


def _tag(model: ListedModel) -> dict[str, Any]:
    return {
        **_named(model.id),
        "modified_at": time_text(model.created),
        "size": model.bytes,
        "digest": digest(model.path, model.version),
        "details": details(model.fields),
    }


def _process(info: ObjectInfo) -> dict[str, Any]:
    keep = float(info.fields.get("keep_alive", -1))
    version = str(info.fields.get("version", ""))
    return {
        **_named(info.name),
        "size": info.bytes,
        "digest": digest(str(info.fields.get("path", "")), version),
        "details": details(info.fields),
        "expires_at": FOREVER if keep < 0 else time_text((info.fields.get("used") or info.since) + keep),
        "size_vram": info.bytes,
        "context_length": int(info.fields.get("context", 0)),
    }


def _model_info(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    family = str(fields.get("architecture") or "unknown")
    yield "general.architecture", family
    yield "general.parameter_count", int(fields.get("parameters") or 0)
    yield f"{family}.context_length", int(fields.get("context") or 0)


def _capabilities(fields: Mapping[str, Any]) -> Iterator[str]:
    tasks = list(fields.get("tasks") or ())
    if "text-generation" in tasks:
        yield "completion"
    if fields.get("chat") or fields.get("chat_template"):
        yield "tools"
    if "feature-extraction" in tasks:
        yield "embedding"
    for task in tasks:
        for word, capability in _MODALITIES.items():
            if task.startswith(f"{word}-") and "text" in task:
                yield capability

"""`POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter`, as vLLM's server has them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..core.body import json_body
from ..core.caller import caller_of, gateway_of
from ..core.errors import model_not_found
from ..core.models import base_path, path_of, plain
from ..native.confine import path as confined

Name = Annotated[str, Meta(min_length=1, max_length=512)]


class LoadBody(Struct, frozen=True, kw_only=True):
    """The name to serve it by, and where it is in the namespace; `base_model_name` where it does not say itself."""

    lora_name: Name
    lora_path: Name
    base_model_name: str | None = None


class UnloadBody(Struct, frozen=True, kw_only=True):
    """The name of a loaded adapter."""

    lora_name: Name


async def load_adapter(request: Request) -> Response:
    """Load an adapter under a name of its own."""
    body = await json_body(request, LoadBody)
    gateway, caller = gateway_of(request), caller_of(request)
    if not caller.may_use(plain(body.lora_name)):
        raise model_not_found(body.lora_name)
    path = confined(caller, path_of(body.lora_path))
    own = await gateway.sessions.own()
    over = body.base_model_name or base_path((await own.stat_path(path)).fields)
    base = await gateway.models.get(caller, over) if over else None
    held = await own.model(base.info.id) if base is not None else None
    keep = gateway.settings.keep_alive
    await own.load_model(path, base=held, adapter=True, name=body.lora_name, keep_alive=keep)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


async def unload_adapter(request: Request) -> Response:
    """Take a loaded adapter off its device."""
    body = await json_body(request, UnloadBody)
    gateway, caller = gateway_of(request), caller_of(request)
    found = await gateway.models.state(caller, body.lora_name)
    if found is None or not found.fields.get("base"):
        raise model_not_found(body.lora_name, "no such adapter is loaded")
    own = await gateway.sessions.own()
    await (await own.model(found.id)).unload()
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

"""`GET /v1/models` and `GET /v1/models/NAME`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..core.caller import caller_of, gateway_of
from ..core.errors import model_not_found
from ..core.models import ListedModel, path_of
from ..core.respond import json_response


async def list_models(request: Request) -> Response:
    """All models of this machine that the key may use, loaded or not."""
    found = await gateway_of(request).models.listed(caller_of(request))
    return json_response({"object": "list", "data": [shown(model) for model in found]})


async def get_model(request: Request) -> Response:
    """One model."""
    gateway = gateway_of(request)
    name = request.path_params["model"]
    wanted = gateway.settings.aliases.get(name, name)
    for model in await gateway.models.listed(caller_of(request)):
        if wanted == model.id or model.path in (wanted, path_of(wanted)):
            return json_response({**shown(model), "id": name})
    raise model_not_found(name)


def shown(model: ListedModel) -> dict[str, Any]:
    """A model as the API has it; what is ours stands under `llmos`."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "llmos": {
            "state": model.state,
            "tasks": model.tasks,
            "context": model.context,
            "path": model.path,
            "adapter_of": model.adapter_of,
            "chat": model.chat,
        },
    }

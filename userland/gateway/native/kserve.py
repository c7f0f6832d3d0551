"""The Open Inference Protocol of KServe, version 2, for models that take and give named tensors: `/v2/...`.

https://github.com/kserve/open-inference-protocol; of its extensions that of binary tensors and the model repository.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from llmos.syscalls.calls import Infer
from llmos.syscalls.errors import NotSupported
from llmos.syscalls.types import Inference, ObjectInfo, Tensors, TensorsOut
from llmos.userland.async_objects import AsyncModel

from ..core import health
from ..core.caller import caller_of, counts_load, gateway_of
from ..core.errors import Failure, answer_of, model_not_found
from ..core.respond import json_response
from ..core.routing import Handler, requires
from ..core.scopes import Scope
from ..openai.orders import told
from .tensors import HEADER, inputs_of, outputs_of, parsed

NAME = "llmos"
EXTENSIONS = ("binary_tensor_data", "model_repository")


def error_response(error: Failure, request: Request | None = None) -> Response:
    """An error as KServe tells it, with the status that it has everywhere."""
    answer = answer_of(error)
    return json_response({"error": answer.message}, answer.status, answer.headers)


async def live(request: Request) -> Response:
    """Whether the server runs."""
    return json_response({"live": True})


async def ready(request: Request) -> Response:
    """Whether requests can be served. Raises Unavailable when not."""
    await health.check(request, None)
    return json_response({"ready": True})


async def server(request: Request) -> Response:
    """The server's name, version and extensions."""
    own = await gateway_of(request).sessions.own()
    version = str((await own.stat()).fields.get("version", ""))
    return json_response({"name": NAME, "version": version, "extensions": list(EXTENSIONS)})


async def model(request: Request) -> Response:
    """What a loaded model is. Names and shapes of its tensors are not known before a request."""
    name = model_name(request)
    info = await _loaded(request, name)
    return json_response(
        {
            "name": request.path_params["model"],
            "versions": [str(info.fields.get("version", ""))],
            "platform": f"{NAME}_{info.fields.get('architecture', '')}",
            "inputs": [],
            "outputs": [],
        }
    )


async def model_ready(request: Request) -> Response:
    """Whether a model takes requests; 404 when none of that name is loaded, 503 when it does not."""
    name = model_name(request)
    await _loaded(request, name)
    await health.check(request, name)
    return json_response({"name": request.path_params["model"], "ready": True})


async def infer(request: Request) -> Response:
    """Named tensors in, named tensors out."""
    call = parsed(await request.body(), request.headers.get(HEADER))
    content = Tensors(named=inputs_of(call))
    gateway = gateway_of(request)

    async def work(model: AsyncModel) -> tuple[AsyncModel, Inference]:
        asked = Infer(model=model.handle, input=content)
        return model, await model.client.call(asked, timeout=gateway.settings.request_s)

    model, inference = await gateway.models.use(
        caller_of(request), model_name(request), work, on_load=counts_load(request)
    )
    told(request, inference)
    if not isinstance(inference.result, TensorsOut):
        raise NotSupported(
            f"the model {model.info.name!r} answers {inference.task}, not tensors; ask for it at /v1 or /api/v1",
            why="no tensors",
        )
    head: dict[str, Any] = {
        "model_name": request.path_params["model"],
        "model_version": inference.model_version,
        "id": call.id or inference.id,
    }
    head["outputs"], binary = outputs_of(call, inference.result.named)
    answer = json_response(head)
    if not binary:
        return answer
    headers = {HEADER: str(len(answer.body))}
    return Response(b"".join([bytes(answer.body), *binary]), 200, headers, "application/octet-stream")


async def index(request: Request) -> Response:
    """All models that the key may use."""
    listed = await gateway_of(request).models.listed(caller_of(request))
    return json_response(
        [
            {
                "name": each.id,
                "version": each.version,
                "state": "READY" if each.state == "awake" else "UNAVAILABLE",
                "reason": "" if each.state == "awake" else each.state,
            }
            for each in listed
        ]
    )


async def load(request: Request) -> Response:
    """Load a stored model."""
    await gateway_of(request).models.get(caller_of(request), model_name(request))
    return Response(status_code=200)


async def unload(request: Request) -> Response:
    """Take a model off its device. Raises Busy while requests use it."""
    info = await _loaded(request, model_name(request))
    own = await gateway_of(request).sessions.own()
    await (await own.model(info.id)).unload()
    return Response(status_code=200)


def model_name(request: Request) -> str:
    """The model that a path names, with its version where it names one."""
    name, version = str(request.path_params["model"]), request.path_params.get("version")
    return f"{name}@{version}" if version else name


async def _loaded(request: Request, name: str) -> ObjectInfo:
    info = await gateway_of(request).models.state(caller_of(request), name)
    if info is None:
        raise model_not_found(name, "it is not loaded")
    return info


def routes() -> list[BaseRoute]:
    """The routes, each with its scope. Longer paths come first, since a model's name may have slashes."""

    def route(method: str, path: str, scope: Scope, handler: Handler) -> Route:
        return Route(f"/v2{path}", requires(scope, handler, error_response), methods=[method])

    found: list[BaseRoute] = [
        route("GET", "", "read", server),
        route("GET", "/health/live", "read", live),
        route("GET", "/health/ready", "read", ready),
        route("POST", "/repository/index", "read", index),
        route("POST", "/repository/models/{model:path}/load", "load", load),
        route("POST", "/repository/models/{model:path}/unload", "manage", unload),
    ]
    for path in ("/models/{model:path}/versions/{version}", "/models/{model:path}"):
        found += [
            route("GET", f"{path}/ready", "read", model_ready),
            route("POST", f"{path}/infer", "infer", infer),
            route("GET", path, "read", model),
        ]
    return found

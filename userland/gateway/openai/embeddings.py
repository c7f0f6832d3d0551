"""`POST /v1/embeddings`."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from llmos.syscalls.calls import Embed
from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.syscalls.types import EmbedOptions, Embeddings, Inference, Input, Text, Tokens
from llmos.userland.async_objects import AsyncModel

from ..core.body import json_body
from ..core.caller import caller_of, counts_load, gateway_of
from ..core.respond import json_response
from .orders import deadline, together, told

MOST_INPUTS = 2048


class EmbeddingBody(Struct, frozen=True, kw_only=True):
    """The body; `priority` and `truncate_prompt_tokens` are those of vLLM's server."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=1)] | None = None
    priority: int = 0


async def embeddings(request: Request) -> Response:
    """A vector for each input."""
    body = await json_body(request, EmbeddingBody)
    inputs = inputs_of(body.input)
    rows, tokens = await embed(request, body.model, inputs, body.truncate_prompt_tokens, body.priority)
    if body.dimensions is not None:
        rows = [cut(row, body.dimensions) for row in rows]
    as_text = body.encoding_format == "base64"
    shown: list[Any] = [_base64(row) if as_text else list(row) for row in rows]
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(shown)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"object": "list", "data": data, "model": body.model, "usage": usage})


def inputs_of(given: str | list[Any]) -> list[Input]:
    """One text, several, token ids, or several lists of them. Raises BadArgument."""
    if isinstance(given, str):
        return [Text(text=given)]
    if given and all(isinstance(item, int) and not isinstance(item, bool) for item in given):
        return [Tokens(ids=given)]
    if not given or len(given) > MOST_INPUTS:
        raise BadArgument(f"input has {len(given)} entries; 1 to {MOST_INPUTS} are taken", name="input")
    try:
        return [
            Text(text=one) if isinstance(one, str) else Tokens(ids=msgspec.convert(one, list[int])) for one in given
        ]
    except msgspec.ValidationError:
        want = "a text, a list of texts, or token ids"
        raise BadArgument(f"input is neither text nor token ids; expected {want}", name="input", want=want) from None


async def embed(
    request: Request, name: str, inputs: list[Input], max_tokens: int | None = None, priority: int = 0
) -> tuple[list[array[float]], int]:
    """A vector for each input, and how many tokens were read. They run side by side, as the device batches them."""
    gateway, caller = gateway_of(request), caller_of(request)
    options = EmbedOptions(pooling=gateway.settings.embedding_pooling, max_tokens=max_tokens)

    async def work(model: AsyncModel) -> list[Inference]:
        rank, until = caller.priority(priority), deadline(request)
        calls = [Embed(model=model.handle, input=one, options=options, priority=rank, deadline=until) for one in inputs]
        return await together(model.client.call(call) for call in calls)

    found = await gateway.models.use(caller, name, work, on_load=counts_load(request))
    request.scope["state"]["model"] = name
    told(request, max(found, key=lambda one: one.timing.total))
    return [vector(one) for one in found], sum(one.usage.prompt_tokens for one in found)


def vector(inference: Inference) -> array[float]:
    """The numbers of an embedding of one input. Raises NotSupported: the model gave something else."""
    result = inference.result
    if not isinstance(result, Embeddings) or not isinstance(result.tensor.data, bytes):
        raise NotSupported("the model gave no vectors", why="no embeddings")
    numbers = array("f")
    numbers.frombytes(result.tensor.data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def cut(row: array[float], dimensions: int) -> array[float]:
    """The first numbers of a vector, made as long as 1 again: models trained for that (Matryoshka) stay meaningful.

    Raises:
        BadArgument: it has fewer.
    """
    if dimensions > len(row):
        raise BadArgument(
            f"dimensions is {dimensions}; the model gives {len(row)}", name="dimensions", got=str(dimensions),
            want=f"1 to {len(row)}",
        )  # fmt: skip
    kept = row[:dimensions]
    length = math.sqrt(sum(number * number for number in kept)) or 1.0
    return array("f", (number / length for number in kept))


def _base64(row: array[float]) -> str:
    """The numbers as float32, little endian."""
    if sys.byteorder == "big":
        row = array("f", row)
        row.byteswap()
    return base64.b64encode(row.tobytes()).decode()

"""`POST /api/embed` and its older form, `POST /api/embeddings`."""

from __future__ import annotations

import time
from array import array
from typing import NamedTuple

from starlette.requests import Request
from starlette.types import ASGIApp

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Text

from ..core.body import json_body
from ..core.caller import caller_of, counts_load, gateway_of
from ..core.respond import json_response
from ..openai import embeddings as openai
from ..openai.orders import kept
from .bodies import EmbedBody, EmbeddingsBody

TASK = "feature-extraction"


class Vectors(NamedTuple):
    """What texts became, how many tokens they had, and what it took in nanoseconds."""

    rows: list[list[float]]
    tokens: int
    load_ns: int
    total_ns: int


async def embed(request: Request) -> ASGIApp:
    """Vectors of one text or of several, each of length 1."""
    body = await json_body(request, EmbedBody)
    texts = [body.input] if isinstance(body.input, str) else body.input
    found = await _vectors(request, body.wanted, texts, body.keep_alive, body.dimensions, truncate=body.truncate)
    return json_response(
        {
            "model": body.model or body.name,
            "embeddings": found.rows,
            "total_duration": found.total_ns,
            "load_duration": found.load_ns,
            "prompt_eval_count": found.tokens,
        }
    )


async def embeddings(request: Request) -> ASGIApp:
    """The vector of one text."""
    body = await json_body(request, EmbeddingsBody)
    found = await _vectors(request, body.wanted, [body.prompt], body.keep_alive, None, truncate=True)
    return json_response({"embedding": found.rows[0]})


async def _vectors(
    request: Request, name: str, texts: list[str], keep_alive: float | str | None, dimensions: int | None, *,
    truncate: bool,
) -> Vectors:  # fmt: skip
    if not name:
        raise BadArgument("the body names no model", name="model", want="the name of a model")
    if len(texts) > openai.MOST_INPUTS:
        text = f"input has {len(texts)} texts; {openai.MOST_INPUTS} are the most"
        raise BadArgument(text, name="input", got=str(len(texts)))
    models, keep, began = gateway_of(request).models, kept(request, keep_alive), time.perf_counter_ns()
    model = await models.get(caller_of(request), name, keep_alive=keep, wanted_task=TASK, on_load=counts_load(request))
    loaded, tokens = time.perf_counter_ns(), 0
    rows: list[array[float]] = []
    if texts:
        most = model.info.context if truncate and model.info.context else None
        rows, tokens = await openai.embed(request, name, [Text(text=text) for text in texts], most)
    if dimensions is not None:
        rows = [openai.cut(row, dimensions) for row in rows]
    if keep is not None:
        await models.keep_alive(model, keep)
    return Vectors([row.tolist() for row in rows], tokens, loaded - began, time.perf_counter_ns() - began)

"""`POST /v1/rerank` (the form of Cohere and Jina), `/v1/score` (of vLLM's server) and `/v1/moderations`."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.syscalls.types import Inference, Labels, Parts, Scores, Text

from ..core.body import json_body
from ..core.caller import gateway_of
from ..core.respond import json_response
from .orders import Order, run
from .writing import new_id

MOST_TEXTS = 1000
_FLAGGED = 0.5
"""A label of at least this score is a finding."""
_HARMLESS = frozenset({"ok", "safe", "neutral", "harmless", "none", "normal", "clean", "not_toxic", "non-toxic"})
"""Labels of classifiers that mean that nothing was found."""

Name = Annotated[str, Meta(min_length=1, max_length=512)]


class RerankBody(Struct, frozen=True, kw_only=True):
    """A query and the documents to put in order: texts, or maps with `text`."""

    model: Name
    query: str
    documents: Annotated[list[str | dict[str, Any]], Meta(min_length=1, max_length=MOST_TEXTS)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool = False
    priority: int = 0


class ScoreBody(Struct, frozen=True, kw_only=True):
    """One text, and one or several to compare it with."""

    model: Name
    text_1: str
    text_2: str | Annotated[list[str], Meta(min_length=1, max_length=MOST_TEXTS)]
    priority: int = 0


class ModerationBody(Struct, frozen=True, kw_only=True):
    """Texts to look at; the model of the settings is used unless the body names another."""

    input: str | list[Any]
    model: str | None = None


async def rerank(request: Request) -> Response:
    """The documents in the order of their score."""
    body = await json_body(request, RerankBody)
    texts = [_text(document, f"documents[{at}]") for at, document in enumerate(body.documents)]
    scores, inference = await _scores(request, body.model, body.query, texts, body.priority)
    order = sorted(range(len(texts)), key=lambda at: -scores[at])[: body.top_n or len(texts)]
    results = [
        {
            "index": at,
            "relevance_score": scores[at],
            **({"document": {"text": texts[at]}} if body.return_documents else {}),
        }
        for at in order
    ]
    usage = {"total_tokens": inference.usage.prompt_tokens}
    return json_response({"id": new_id("rerank"), "model": body.model, "results": results, "usage": usage})


async def score(request: Request) -> Response:
    """A score for each pair."""
    body = await json_body(request, ScoreBody)
    texts = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    scores, inference = await _scores(request, body.model, body.text_1, texts, body.priority)
    data = [{"index": at, "object": "score", "score": each} for at, each in enumerate(scores)]
    tokens = inference.usage.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"id": new_id("score"), "object": "list", "model": body.model, "data": data, "usage": usage})


async def _scores(
    request: Request, model: str, query: str, texts: list[str], priority: int
) -> tuple[list[float], Inference]:
    parts = Parts(parts=[Text(text=text) for text in (query, *texts)])
    order = Order(model=model, content=parts, task="rerank", wanted_task="rerank", priority=priority)
    inference = await run(request, order)
    assert isinstance(inference.result, Scores)
    return inference.result.scores, inference


def _text(document: str | dict[str, Any], place: str) -> str:
    text = document if isinstance(document, str) else document.get("text")
    if not isinstance(text, str):
        raise BadArgument(f"{place} has no text", name=place, want='a text, or {"text": ...}')
    return text


async def moderations(request: Request) -> Response:
    """What a classifier of the user's choice finds in texts: each of its labels is a category."""
    body = await json_body(request, ModerationBody)
    settings = gateway_of(request).settings
    if not settings.moderation_model:
        raise NotSupported(
            "moderations need a text classifier: name one in the setting moderation_model of [gateway.config]",
            why="no moderation_model",
        )
    texts = [body.input] if isinstance(body.input, str) else [_part(part, at) for at, part in enumerate(body.input)]
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise BadArgument(f"input has {len(texts)} texts; 1 to {MOST_TEXTS} are taken", name="input")
    results = [await _moderate(request, settings.moderation_model, text) for text in texts]
    return json_response({"id": new_id("modr"), "model": settings.moderation_model, "results": results})


def _part(part: Any, at: int) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        raise BadArgument(f"input[{at}] is no text; only texts are looked at", name=f"input[{at}]", want="a text")
    return text


async def _moderate(request: Request, model: str, text: str) -> dict[str, Any]:
    order = Order(
        model=model, content=Text(text=text), task="text-classification", wanted_task="text-classification",
        options={"top_k": 0},
    )  # fmt: skip
    inference = await run(request, order)
    assert isinstance(inference.result, Labels)
    return findings({label.label: label.score for label in inference.result.labels})


def findings(scores: dict[str, float]) -> dict[str, Any]:
    """What the scores of the labels mean; those of labels that mean nothing bad are no findings."""
    found = {name: value >= _FLAGGED and name.lower() not in _HARMLESS for name, value in scores.items()}
    return {"flagged": any(found.values()), "categories": found, "category_scores": scores}

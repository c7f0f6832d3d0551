"""From a body to the kernel's `Sampling`: the defaults of the API, not the kernel's."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Grammar, ModelInfo, Sampling

from .bodies import Chosen

MOST_TOKENS = 4096
"""The longest answer for who says no `max_tokens`; less where the model's context is smaller."""
STOPS = 16
_SEEDS = (1 << 63) - 1


def sampling_of(
    body: Chosen,
    info: ModelInfo,
    *,
    max_tokens: int | None = None,
    logprobs: int | None = None,
    grammar: Grammar | None = None,
    best_of: int | None = None,
) -> Sampling:
    """How tokens are chosen. Temperature and top_p are 1 unless the body says otherwise.

    Args:
        body: of the request.
        info: the model.
        max_tokens: None takes `body.max_tokens`, or what the model has room for.
        logprobs: alternatives per token; None reports none.
        grammar: instead of what the body's own fields mean.
        best_of: of /v1/completions.

    Raises:
        BadArgument: fields that contradict each other.
    """
    wanted = body.max_tokens if max_tokens is None else max_tokens
    if wanted is None:
        wanted = min(MOST_TOKENS, info.context or MOST_TOKENS)
    return Sampling(
        max_tokens=wanted,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_k=max(0, body.top_k or 0),
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=body.logit_bias or {},
        seed=None if body.seed is None else body.seed & _SEEDS,
        stop=stops(body.stop),
        stop_token_ids=body.stop_token_ids or [],
        ignore_eos=body.ignore_eos,
        n=body.n or 1,
        best_of=best_of,
        logprobs=logprobs,
        grammar=grammar or grammar_of(body),
    )


def stops(given: str | list[str] | None) -> list[str]:
    """The texts that end an answer. Raises BadArgument: too many."""
    found = [given] if isinstance(given, str) else list(given or ())
    if len(found) > STOPS:
        raise BadArgument(f"stop has {len(found)} texts; {STOPS} are the most", name="stop", got=str(len(found)))
    return [text for text in found if text]


def grammar_of(body: Chosen) -> Grammar | None:
    """What the answer must look like, by `response_format` or one of the `guided_` fields.

    Raises:
        BadArgument: several at once, or a format that is not known.
    """
    named: dict[str, Grammar] = {}
    if body.response_format is not None and (form := response_grammar(body.response_format)) is not None:
        named["response_format"] = form
    if body.guided_json is not None:
        named["guided_json"] = Grammar(json_schema=_schema(body.guided_json))
    if body.guided_regex is not None:
        named["guided_regex"] = Grammar(regex=body.guided_regex)
    if body.guided_choice is not None:
        named["guided_choice"] = Grammar(choice=body.guided_choice)
    if body.guided_grammar is not None:
        named["guided_grammar"] = Grammar(lark=body.guided_grammar)
    if len(named) > 1:
        names = " and ".join(named)
        raise BadArgument(f"{names} exclude each other: give one of them", name=next(iter(named)), got=names)
    return next(iter(named.values()), None)


def response_grammar(form: dict[str, Any], name: str = "response_format") -> Grammar | None:
    """The grammar of a `response_format`; None for plain text. Raises BadArgument."""
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Grammar(json_schema={"type": "object"})
    if kind == "json_schema":
        described = form.get("json_schema", form)
        schema = described.get("schema") if isinstance(described, dict) else None
        if not isinstance(schema, dict):
            raise BadArgument(f"{name}.json_schema has no schema", name=name, want='{"name": ..., "schema": {...}}')
        return Grammar(json_schema=schema)
    want = "text, json_object or json_schema"
    raise BadArgument(f"{name} has the type {kind!r}; expected {want}", name=name, got=repr(kind)[:40], want=want)


def _schema(given: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    try:
        return msgspec.json.decode(given, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise BadArgument(f"guided_json is no JSON schema: {error}", name="guided_json") from None

"""How tokens are chosen, and other options of one inference."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from .common import Argument


class Grammar(Argument):
    """Structured output: exactly one of these is set."""

    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    lark: str | None = None
    choice: list[Annotated[str, Meta(min_length=1)]] | None = None
    """The answer is one of these texts."""


class Speculative(Argument):
    """Speculative decoding: `ngram` looks the prompt up, `draft` uses the model's draft model."""

    method: Annotated[str, "ngram or draft"] = "ngram"
    tokens: Annotated[int, Meta(ge=1, le=32)] = 4


class Sampling(Argument):
    """How the next token is chosen. Temperature 0 is greedy; the filters apply in the order top_k, top_p, min_p."""

    max_tokens: Annotated[int, Meta(ge=0)] = 128
    temperature: Annotated[float, Meta(ge=0)] = 0.0
    top_k: Annotated[int, Meta(ge=0)] = 0
    """0 keeps every token."""
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    logit_bias: dict[int, float] = {}
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    """The same seed gives the same tokens; None draws one."""
    stop: list[Annotated[str, Meta(min_length=1)]] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    n: Annotated[int, Meta(ge=1)] = 1
    best_of: Annotated[int, Meta(ge=1)] | None = None
    """Make so many answers and give the `n` of the greatest log probability per token."""
    beams: Annotated[int, Meta(ge=1)] = 1
    logprobs: Annotated[int, Meta(ge=0, le=100)] | None = None
    """How many alternatives to report per new token; 0 reports the chosen token only; None reports nothing."""
    prompt_logprobs: Annotated[int, Meta(ge=0, le=100)] | None = None
    grammar: Grammar | None = None
    speculative: Speculative | None = None


class EmbedOptions(Argument):
    """How token vectors become one vector."""

    pooling: Annotated[str, "mean, cls or last"] = "mean"
    normalize: bool = True
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Truncate longer inputs to this many tokens; None refuses what exceeds the model's context."""

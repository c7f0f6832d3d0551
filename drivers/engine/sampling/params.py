"""Which sampling settings make sense, alone and together."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llmos.syscalls.errors import BadArgument, TooLarge

from ...contract import SamplingParams
from ...sampling import OPTIONS
from ...sampling import check as check_ranges

MOST_SEED = 2**63 - 1
MOST_CHOICES = 256
MOST_DRAFTS = 32
METHODS = ("ngram", "draft")

ALONE: Mapping[str, object] = {
    "n": 1, "best_of": None, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0,
    "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": None, "logprobs": None, "prompt_logprobs": None,
    "grammar": None, "speculative": None,
}  # fmt: skip
"""What beam search does not take, and the value that does not ask for it."""


def check(params: SamplingParams, vocabulary: int) -> None:
    """Check the settings of a request to a model of `vocabulary` tokens.

    Raises:
        BadArgument: a value is out of its range, or two settings contradict each other (both are named).
        TooLarge: more choices than a request may have.
    """
    check_ranges(params, OPTIONS)
    if math.isinf(params.temperature) or math.isinf(params.repetition_penalty):
        name = "temperature" if math.isinf(params.temperature) else "repetition_penalty"
        raise BadArgument(f"{name} is infinite; expected a finite number", name=name, got="inf", want="finite")
    if params.seed is not None and not 0 <= params.seed <= MOST_SEED:
        want = f"0 to {MOST_SEED}"
        raise BadArgument(f"seed is {params.seed}; expected {want}", name="seed", got=str(params.seed), want=want)
    _check_bias(params.logit_bias, vocabulary)
    _check_speculative(params.speculative)
    _check_together(params)


def choices(params: SamplingParams) -> int:
    """How many answers are made for a request, of which the best `n` are given."""
    return params.n if params.best_of is None else params.best_of


def _check_bias(biases: Mapping[int, float], vocabulary: int) -> None:
    want = f"tokens 0 to {vocabulary - 1}"
    for token, bias in biases.items():
        if not 0 <= token < vocabulary:
            said = f"logit_bias names token {token}; expected {want}"
            raise BadArgument(said, name="logit_bias", got=str(token), want=want)
        if math.isnan(bias) or bias == math.inf:
            said = f"logit_bias of token {token} is {bias}; expected a finite number, or -inf to exclude it"
            raise BadArgument(said, name="logit_bias", got=str(bias), want="finite numbers or -inf")


def _check_speculative(settings: Mapping[str, object] | None) -> None:
    if settings is None:
        return
    method, tokens = settings.get("method", METHODS[0]), settings.get("tokens", 1)
    if method not in METHODS:
        want = " or ".join(METHODS)
        said = f"speculative.method is {method!r}; expected {want}"
        raise BadArgument(said, name="speculative.method", got=str(method), want=want)
    if not isinstance(tokens, int) or not 1 <= tokens <= MOST_DRAFTS:
        want = f"1 to {MOST_DRAFTS}"
        said = f"speculative.tokens is {tokens}; expected {want}"
        raise BadArgument(said, name="speculative.tokens", got=str(tokens), want=want)


def _check_together(params: SamplingParams) -> None:
    if params.beams > 1:
        for name, unasked in ALONE.items():
            if getattr(params, name) != unasked:
                raise _contradiction(params, name, "beams", "beam search chooses tokens in its own way")
        if params.logit_bias:
            raise _contradiction(params, "logit_bias", "beams", "beam search chooses tokens in its own way")
        return
    if params.best_of is not None and params.best_of < params.n:
        raise _contradiction(params, "best_of", "n", "the n best of fewer than n answers do not exist")
    made = choices(params)
    if made > 1 and params.temperature == 0.0:
        name = "n" if params.best_of is None else "best_of"
        raise _contradiction(params, name, "temperature", "greedy answers are all the same; set a temperature above 0")
    if made > MOST_CHOICES:
        raise TooLarge(f"{made} answers to one request; at most {MOST_CHOICES} are made", limit=MOST_CHOICES, got=made)


def _contradiction(params: SamplingParams, one: str, other: str, why: str) -> BadArgument:
    value, beside = getattr(params, one), getattr(params, other)
    said = f"{one}={value} does not go with {other}={beside}: {why}"
    return BadArgument(said, name=one, got=f"{one}={value}, {other}={beside}", want=f"{one} or {other}, not both")

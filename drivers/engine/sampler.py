"""Choosing the next token from logits.

In order: penalties, bias, then greedy, or temperature, top-k, top-p, min-p and a draw. Log probabilities are the
log-softmax of the model's own logits in float32, before any of that: they say what the model thinks, not what the
settings made of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument, DeviceFault, NotSupported

from ..contract import SamplingParams, TokenLogprob
from ..ops.table import OpTable
from .detokenizer import Vocabulary

RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (0, math.inf),
    "temperature": (0.0, math.inf),
    "top_k": (0, math.inf),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.0, math.inf),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "logprobs": (0, 100),
    "seed": (0, 2**63 - 1),
}
POSITIVE = ("top_p", "repetition_penalty")

MISSING: dict[str, str] = {
    "n": "several answers to one request are not made by this runner; send the request again with another seed",
    "best_of": "several answers to one request are not made by this runner; send the request again with another seed",
    "beams": "beam search is not made by this runner",
    "prompt_logprobs": "log probabilities of the prompt are not made by this runner",
    "grammar": "structured output is not made by this runner",
    "speculative": "speculative decoding is not made by this runner",
}


def check(params: SamplingParams, vocabulary: int) -> None:
    """Raises BadArgument for a value out of range and NotSupported for an option that is not offered."""
    for name, why in MISSING.items():
        value = getattr(params, name)
        if value is not None and value != 1:
            raise NotSupported(f"{name} is not offered by this device: {why}", why=why)
    for name, (low, high) in RANGES.items():
        value = getattr(params, name)
        if value is None:
            continue
        if not low <= value <= high or (value == 0 and name in POSITIVE) or math.isinf(value):
            want = f"{'more than ' if name in POSITIVE else ''}{low} to {high}"
            raise BadArgument(f"{name} is {value}, not {want}", name=name, got=str(value), want=want)
    wrong = next((token for token in params.logit_bias if not 0 <= token < vocabulary), None)
    if wrong is not None:
        want = f"tokens 0 to {vocabulary - 1}"
        raise BadArgument(f"logit_bias names token {wrong}, not {want}", name="logit_bias", got=str(wrong), want=want)
    if any(math.isnan(bias) or bias == math.inf for bias in params.logit_bias.values()):
        raise BadArgument("a logit_bias is not a number", name="logit_bias", got="nan or inf", want="finite numbers")


class Sampler:
    """Chooses the tokens of one answer. The same seed gives the same tokens, whatever else runs."""

    def __init__(
        self, params: SamplingParams, ops: OpTable, vocabulary: Vocabulary, size: int, prompt: Sequence[int]
    ) -> None:
        self._params = params
        self._vocabulary = vocabulary
        self._prompt = prompt
        spec = {"device": "cpu", "dtype": "float32", "vocabulary": size}
        self._filter = self._penalize = self._top = None
        if params.temperature > 0.0 and (params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0):
            self._filter = ops.choose("filter_logits", spec).implementation.call
        if params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0:
            self._penalize = ops.choose("penalize_logits", spec).implementation.call
        if params.logprobs is not None:
            self._top = ops.choose("top_logprobs", spec).implementation.call
        self._counts: Tensor | None = None
        self._seen: Tensor | None = None
        self._bias: Tensor | None = None
        self._generator = _generator(params)

    def choose(self, logits: Tensor) -> tuple[int, TokenLogprob | None]:
        """The next token from logits of shape [V]. Raises DeviceFault when they are not finite."""
        logits = logits.float()
        scores = self._adjust(logits)
        best, index = scores.max(dim=-1)
        if not math.isfinite(best.item()):
            raise DeviceFault("the model answered with logits that are not finite", cause="logits are not finite")
        token = int(index) if self._generator is None else self._draw(scores - best, self._generator)
        if self._seen is not None and self._counts is not None:
            self._seen[token] = True
            self._counts[token] += 1
        return token, None if self._top is None else self._logprob(logits, token)

    def _adjust(self, scores: Tensor) -> Tensor:
        """Penalties, then bias; as wide as the model's output, which may differ from its input."""
        params, size = self._params, scores.shape[-1]
        if self._penalize is not None:
            if self._seen is None:
                self._counts, self._seen = torch.zeros(size), torch.zeros(size, dtype=torch.bool)
                self._seen[torch.tensor([token for token in self._prompt if token < size], dtype=torch.long)] = True
            penalties = params.repetition_penalty, params.presence_penalty, params.frequency_penalty
            scores = self._penalize(scores, self._seen, self._counts, *penalties)
        if params.logit_bias:
            if self._bias is None:
                self._bias = torch.zeros(size)
                for token, value in params.logit_bias.items():
                    self._bias[token : token + 1] = value
            scores = scores + self._bias
        return scores

    def _draw(self, scores: Tensor, generator: torch.Generator) -> int:
        """Draw from scores whose best is 0, so that no temperature can overflow."""
        scores = scores / self._params.temperature
        if self._filter is not None:
            scores = self._filter(scores, self._params.top_k, self._params.top_p, self._params.min_p)
        return int(torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=generator))

    def _logprob(self, logits: Tensor, token: int) -> TokenLogprob:
        assert self._top is not None
        logprob, ids, values = self._top(logits, token, self._params.logprobs)
        text = self._vocabulary.text_of
        top = tuple((id, text(id), value) for id, value in zip(ids, values, strict=True))
        return TokenLogprob(token, text(token), logprob, top)


def _generator(params: SamplingParams) -> torch.Generator | None:
    if params.temperature <= 0.0:
        return None
    generator = torch.Generator()
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed)
    return generator


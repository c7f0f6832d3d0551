"""Answers of a model without any sense, bound to a grammar."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.sampling.chooser import choosers
from llmos.drivers.engine.sampling.grammar import GrammarCompiler
from llmos.drivers.engine.sampling.sample import sample

STEPS = 1024
EXTRA = 5
"""Logits beyond the tokenizer's last token, as padded vocabularies have."""


class Senseless:
    """A tokenizer with logits for it that are noise; what closes a text is a little likelier, so that it ends."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary(tokenizer)
        self.compiler = GrammarCompiler(tokenizer, self.vocabulary)

    @cache  # noqa: B019 (lives as long as the test session)
    def logits(self) -> Tensor:
        size = max(self.tokenizer.get_vocab().values()) + 1
        noise = torch.randn(STEPS, size + EXTRA, generator=torch.Generator().manual_seed(0)) * 2
        for token in range(size):
            noise[:, token] += 3.0 * any(mark in self.vocabulary.bytes_of(token) for mark in b'"}],')
        noise[:, size:] += 9.0
        return noise

    def answer(
        self, grammar: Mapping[str, Any], temperature: float = 1.0, seed: int = 0, ends: tuple[int, ...] = (),
        limit: int = 400,
    ) -> tuple[str, str]:  # fmt: skip
        """The text, and why it ended: grammar, stop or length."""
        params = SamplingParams(temperature=temperature, seed=seed)
        (chooser,) = choosers(params, [], self.compiler.compile(grammar, ends))
        detokenizer, text = self.vocabulary.detokenizer([5]), ""
        for step in range(limit):
            at = (seed * 37 + step) % STEPS
            (sampled,) = sample([chooser], self.logits()[at : at + 1], self.vocabulary)
            if sampled.error is not None:
                raise sampled.error
            if sampled.token in ends:
                return text, "stop"
            text += detokenizer.feed(sampled.token)
            if sampled.finished:
                return text, "grammar"
        return text, "length"

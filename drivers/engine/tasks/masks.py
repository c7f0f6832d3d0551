"""Words for the masks in a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument

from ...contract import LabelScore, LabelsResult, Request, SpanResult, SpansResult
from .base import BATCH_TOKENS, Job, Line, Outcome
from .options import Options
from .text import CUT, Encoded, TextFront, most_tokens

LOGIT_BYTES = 256 << 20
"""What the logits of all tokens of a batch may take."""


class FillMask:
    """The most likely tokens for each mask: labels for one mask, spans where there are several."""

    name: ClassVar[str] = "fill-mask"
    options: ClassVar[Mapping[str, str]] = {
        "top_k": "how many tokens for each mask, best first; 5 by default",
        "targets": "only these words; of one that is no token, its first token",
        **CUT,
    }

    def __init__(self, front: TextFront) -> None:
        self._front = front
        self._mask = front.tokenizer.mask_token_id
        self.batch_tokens = min(BATCH_TOKENS, max(1, LOGIT_BYTES // (4 * max(1, front.bundle.vocabulary))))

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        count, targets = options.whole("top_k", 5, 1), self._targets(options.texts("targets", ()))
        text, encoded = self._front.one(request.prompt, most_tokens(options))
        places = [place for place, id in enumerate(encoded.ids) if id == self._mask]
        if not places:
            want = f"a text with {self._front.tokenizer.mask_token}"
            raise BadArgument(f"the input has no mask; expected {want}", name="input", got="no mask", want=want)

        def answer(outputs: Sequence[Tensor]) -> Outcome:
            found = [self._best(row, count, targets) for row in outputs[0][places]]
            if len(found) == 1:
                return Outcome(LabelsResult(found[0]), truncated=(encoded.truncated,))
            spans = [self._span(text, encoded, place, best) for place, each in zip(places, found, strict=True)
                     for best in each]  # fmt: skip
            return Outcome(SpansResult(spans), truncated=(encoded.truncated,))

        return Job([encoded.line], len(encoded.ids), answer)

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[Tensor]:
        """Logits [T, vocabulary] of each line."""
        logits = self._front.forward(module, self._front.collate(lines)).logits
        return [row[: line.length].cpu() for row, line in zip(logits, lines, strict=True)]

    def _best(self, logits: Tensor, count: int, targets: Tensor | None) -> list[LabelScore]:
        scores = logits.float().softmax(dim=-1)
        if targets is not None:
            scores = scores[targets]
        best = torch.topk(scores, min(count, len(scores)))
        ids = best.indices if targets is None else targets[best.indices]
        words = [self._front.tokenizer.decode([id]) for id in ids.tolist()]
        return [LabelScore(word, score) for word, score in zip(words, best.values.tolist(), strict=True)]

    def _span(self, text: str, encoded: Encoded, place: int, best: LabelScore) -> SpanResult:
        start, end = encoded.offsets[place]
        return SpanResult(best.label, best.score, start, end, text[start:end])

    def _targets(self, words: Sequence[str]) -> Tensor | None:
        """The ids of the words, each once. Raises BadArgument for a word without tokens."""
        known, found = self._front.tokenizer.get_vocab(), []
        for word in words:
            ids = [known[word]] if word in known else self._front.tokenizer(word, add_special_tokens=False)["input_ids"]
            if not ids:
                raise BadArgument(f"the target {word!r} has no tokens", name="targets", got=word[:80], want="words")
            found.append(ids[0])
        return torch.tensor(sorted(set(found))) if found else None

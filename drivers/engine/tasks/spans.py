"""Tasks that point into a text: entities, and answers to questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument, NotSupported

from ...contract import AnswerResult, Request, SpansResult
from .base import BATCH_TOKENS, Job, Line, Outcome
from .entities import STRATEGIES, Piece, entities, longest
from .options import Options
from .text import CUT, Encoded, TextFront, most_tokens

WINDOW = 384
"""Tokens of a question and the part of the text that is read with it, as most such models were trained."""


def need_offsets(front: TextFront, task: str) -> None:
    """Raises NotSupported when the tokenizer does not know where its tokens stand."""
    if not front.tokenizer.is_fast:
        why = "its tokenizer does not say where tokens stand in the text"
        raise NotSupported(f"{task} is not offered by this model: {why}", why=why)


class TokenClassification:
    """Entities of a text, or a label for each of its tokens, with their characters."""

    name: ClassVar[str] = "token-classification"
    options: ClassVar[Mapping[str, str]] = {
        "aggregation_strategy": "none (default) for tokens, or how they become entities: simple, first, average, max",
        "ignore_labels": "labels to leave out; O by default",
        "stride": "read a text of any length in windows that share so many tokens; needs a strategy",
        **CUT,
    }
    batch_tokens = BATCH_TOKENS

    def __init__(self, front: TextFront) -> None:
        self._front = front
        self._names = {int(index): str(label) for index, label in front.bundle.module.config.id2label.items()}

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        need_offsets(self._front, self.name)
        strategy = options.choice("aggregation_strategy", "none", STRATEGIES)
        ignored = options.texts("ignore_labels", ("O",))
        (text,) = self._front.texts(request.prompt, "one text", most=1)
        windows, truncated = self._windows(options, strategy, text)

        def answer(outputs: Sequence[Tensor]) -> Outcome:
            found = [
                span
                for window, scores in zip(windows, outputs, strict=True)
                for span in entities(self._pieces(window, scores, text), self._names, strategy, ignored, text)
            ]
            return Outcome(SpansResult(longest(found) if len(windows) > 1 else found), truncated=(truncated,))

        return Job([window.line for window in windows], sum(len(window.ids) for window in windows), answer)

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[Tensor]:
        """Probabilities [T, labels] of each line."""
        scores = self._front.forward(module, self._front.collate(lines)).logits.float().softmax(dim=-1).cpu()
        return [row[: line.length] for row, line in zip(scores, lines, strict=True)]

    def _windows(self, options: Options, strategy: str, text: str) -> tuple[Sequence[Encoded], bool]:
        most = most_tokens(options)
        if "stride" not in options:
            encoded = self._front.encode(text, most=most)
            return [encoded], encoded.truncated
        if strategy == "none":
            want = "aggregation_strategy simple, first, average or max"
            raise BadArgument(f"stride needs {want}", name="stride", got="none", want=want)
        size = self._front.limit if most is None else min(most, self._front.limit)
        return self._front.windows((text,), size, options.whole("stride", 0), "longest_first"), False

    def _pieces(self, window: Encoded, scores: Tensor, text: str) -> list[Piece]:
        """The tokens of the text with what they scored."""
        front, pieces = self._front, []
        model = front.tokenizer.backend_tokenizer.model
        whole_words = bool(getattr(model, "continuing_subword_prefix", None))
        for id, (start, end), part, row in zip(window.ids, window.offsets, window.parts, scores, strict=True):
            if part is None:
                continue
            if id == front.tokenizer.unk_token_id:
                joined = False
            elif whole_words:
                joined = len(front.tokenizer.convert_ids_to_tokens(id)) != end - start
            else:
                joined = start > 0 and " " not in text[start - 1 : start + 1]
            pieces.append(Piece(start, end, row, joined))
        return pieces


@dataclass(frozen=True)
class _Found:
    """An answer inside a window; `first` and `last` are its tokens."""

    score: float
    window: Encoded
    first: int
    last: int


class QuestionAnswering:
    """The part of a text that answers a question: the first part is the question, the second the text."""

    name: ClassVar[str] = "question-answering"
    options: ClassVar[Mapping[str, str]] = {
        "max_answer_tokens": "how long an answer may be; 15 by default",
        "window": f"tokens of the question and the part of the text read with it; {WINDOW} by default",
        "stride": "how many tokens of the text two windows share; by default 128, or half a window where that is less",
        "whole_words": "false to answer with exactly the tokens found; by default they are widened to whole words",
        "may_be_impossible": "true to answer with an empty text where the model finds no answer likelier than none",
    }
    batch_tokens = BATCH_TOKENS

    def __init__(self, front: TextFront) -> None:
        self._front = front

    def prepare(self, request: Request) -> Job:
        options = Options(self.name, self.options, request.options)
        need_offsets(self._front, self.name)
        most = options.whole("max_answer_tokens", 15, 1)
        whole, impossible = options.flag("whole_words", default=True), options.flag("may_be_impossible", default=False)
        question, text = self._front.texts(request.prompt, "two parts: a question and a text", least=2, most=2)
        size = min(options.whole("window", WINDOW, 1), self._front.limit)
        stride = options.whole("stride", 0) if "stride" in options else None
        windows = self._front.windows((question, text), size, stride, "only_second")

        def answer(outputs: Sequence[tuple[Tensor, Tensor]]) -> Outcome:
            found = [_best(window, *scores, most) for window, scores in zip(windows, outputs, strict=True)]
            best = max(found, key=lambda each: each.score)
            if impossible:
                none = min(_none(window, *scores) for window, scores in zip(windows, outputs, strict=True))
                if none > best.score:
                    return Outcome(AnswerResult("", none, 0, 0))
            start, end = best.window.characters(best.first, best.last, whole_words=whole)
            return Outcome(AnswerResult(text[start:end], best.score, start, end))

        return Job([window.line for window in windows], sum(len(window.ids) for window in windows), answer)

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[tuple[Tensor, Tensor]]:
        """Logits [T] of being the first and the last token of the answer."""
        answer = self._front.forward(module, self._front.collate(lines))
        starts, ends = answer.start_logits.float().cpu(), answer.end_logits.float().cpu()
        return [(starts[i, : line.length], ends[i, : line.length]) for i, line in enumerate(lines)]


def _best(window: Encoded, starts: Tensor, ends: Tensor, most: int) -> _Found:
    """The likeliest pair of tokens of the text, in order, not more than `most`."""
    first, last = _likely(window, starts), _likely(window, ends)
    first[0] = last[0] = 0.0
    scores = torch.outer(first, last).triu().tril(most - 1)
    start, end = divmod(int(scores.argmax()), len(last))
    return _Found(float(scores[start, end]), window, start, end)


def _none(window: Encoded, starts: Tensor, ends: Tensor) -> float:
    """How likely it is that the window has no answer: the model then points at its first token."""
    return float(_likely(window, starts)[0] * _likely(window, ends)[0])


def _likely(window: Encoded, logits: Tensor) -> Tensor:
    """Probabilities of the tokens of the text, and of the first one, which stands for no answer; zero for others."""
    allowed = torch.tensor([part == 1 or place == 0 for place, part in enumerate(window.parts)])
    return logits.masked_fill(~allowed, -torch.inf).softmax(dim=-1)

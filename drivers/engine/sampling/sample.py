"""The next tokens of a step: one for each answer, from one row of logits each.

In order: grammar, penalties, bias, then greedy, or temperature, top-k, top-p, min-p and a draw. What a row gets depends
on its logits and its chooser alone. Only rows that need more than their greatest logit are copied to float32, a tile
at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from llmos.syscalls.errors import BadArgument, DeviceFault, LlmosError

from ...contract import TokenLogprob
from ..detokenizer import Vocabulary
from .chooser import NO_TOKEN, Chooser, Sampled
from .distribution import invert, peaks, scores_of, to_weights
from .logprobs import TILE, Scored, to_logprob


def sample(
    choosers: Sequence[Chooser], logits: Tensor, vocabulary: Vocabulary, rows: Sequence[int] | None = None
) -> list[Sampled]:
    """Choose and accept one token for each chooser from logits `[R, V]` of any float dtype.

    `rows` says which row is whose, several choosers may share one (the answers of one prompt); without it the n-th is
    the n-th's. A row without a choice gets its error in `Sampled.error`: DeviceFault when its logits are not finite,
    BadArgument when its settings leave no token, what its grammar raises. The others are not concerned.
    """
    return choose(choosers, logits, vocabulary, range(len(choosers)) if rows is None else rows, Best(logits))


class Best:
    """The greatest logit of each row and its token."""

    def __init__(self, logits: Tensor) -> None:
        values, tokens = peaks(logits)
        self.values: list[float] = values.tolist()
        self.tokens: list[int] = tokens.tolist()


def choose(
    choosers: Sequence[Chooser], logits: Tensor, vocabulary: Vocabulary, rows: Sequence[int], best: Best
) -> list[Sampled]:
    """As `sample`, with the best tokens known."""
    made: list[Sampled | None] = [None] * len(choosers)
    left: list[int] = []
    for at, (chooser, row) in enumerate(zip(choosers, rows, strict=True)):
        fault = not_finite(best.values[row])
        if fault is not None:
            made[at] = Sampled(NO_TOKEN, error=fault)
        elif chooser.takes(best.tokens[row]):
            made[at] = accept(chooser, best.tokens[row])
        else:
            left.append(at)
    for part in tiles(left, logits.shape[-1]):
        chosen = _tile([choosers[at] for at in part], logits, [rows[at] for at in part], vocabulary)
        for at, sampled in zip(part, chosen, strict=True):
            made[at] = sampled
    return [sampled for sampled in made if sampled is not None]


def tiles(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Parts small enough to be looked at together, for rows of `size` scores."""
    most = max(1, TILE // size)
    for start in range(0, len(numbers), most):
        yield numbers[start : start + most]


def not_finite(best: float) -> DeviceFault | None:
    """The error of a row whose greatest logit is this, if it is one."""
    if math.isfinite(best):
        return None
    return DeviceFault("the model answered with logits that are not finite", cause="logits are not finite")


def accept(chooser: Chooser, token: int, logprob: TokenLogprob | None = None) -> Sampled:
    """Give a chosen token to its answer."""
    try:
        chooser.accept(token)
    except LlmosError as error:
        return Sampled(NO_TOKEN, error=error)
    return Sampled(token, logprob, chooser.constraint is not None and chooser.constraint.finished)


class Tile:
    """Some rows of logits with what their choosers make of them.

    `weights` `[drawn, W]` are of the rows `drawn`, which have a temperature; `greedy` is each row's best token.
    """

    def __init__(self, choosers: Sequence[Chooser], logits: Tensor, rows: Sequence[int]) -> None:
        self.choosers = choosers
        self._logits, self._rows = logits, rows
        scores = scores_of(logits, rows)
        self._scored = self._score(scores)
        self.errors = [_adjust(chooser, scores[at, : logits.shape[-1]]) for at, chooser in enumerate(choosers)]
        peak, best = peaks(scores)
        self.greedy: list[int] = best.tolist()
        for at, value in enumerate(peak.tolist()):
            if self.errors[at] is None and not math.isfinite(value):
                self.errors[at] = _nothing_left(choosers[at], value)
        self.drawn = [at for at, chooser in enumerate(choosers) if chooser.drawn and self.errors[at] is None]
        whole = len(self.drawn) == len(choosers)
        self.weights = to_weights(
            scores if whole else scores[self.drawn], peak if whole else peak[self.drawn],
            [choosers[at].params for at in self.drawn],
        )  # fmt: skip

    def accept(self, at: int, token: int, vocabulary: Vocabulary) -> Sampled:
        """Give a chosen token to its answer, with its log probability if that is wanted."""
        chooser = self.choosers[at]
        if at not in self._scored:
            return accept(chooser, token)
        scored, row = self._scored[at]
        logprob = scored.of(row, float(self._logits[self._rows[at], token]))
        chooser.cumulative += logprob
        count = chooser.params.logprobs
        told = None if count is None else to_logprob(token, logprob, scored.top(row), vocabulary)
        return accept(chooser, token, told)

    def _score(self, scores: Tensor) -> dict[int, tuple[Scored, int]]:
        wanting = [at for at, chooser in enumerate(self.choosers) if chooser.scored]
        if not wanting:
            return {}
        counts = [self.choosers[at].params.logprobs or 0 for at in wanting]
        scored = Scored(scores if len(wanting) == len(self.choosers) else scores[wanting], counts)
        return {at: (scored, row) for row, at in enumerate(wanting)}


def _tile(choosers: Sequence[Chooser], logits: Tensor, rows: Sequence[int], vocabulary: Vocabulary) -> list[Sampled]:
    tile = Tile(choosers, logits, rows)
    tokens = dict(enumerate(tile.greedy))
    if tile.drawn:
        uniforms = [choosers[at].uniform() for at in tile.drawn]
        tokens |= zip(tile.drawn, invert(tile.weights, uniforms).tolist(), strict=True)
    return [
        tile.accept(at, tokens[at], vocabulary) if error is None else Sampled(NO_TOKEN, error=error)
        for at, error in enumerate(tile.errors)
    ]


def _adjust(chooser: Chooser, scores: Tensor) -> LlmosError | None:
    try:
        chooser.adjust(scores)
    except LlmosError as error:
        return error
    return None


def _nothing_left(chooser: Chooser, peak: float) -> BadArgument:
    name = "logit_bias" if chooser.params.logit_bias else "repetition_penalty"
    if peak == -math.inf:
        said = f"{name} excludes every token" + (" that the grammar allows" if chooser.constraint is not None else "")
    else:
        said = f"{name} makes logits that are not finite"
    value = getattr(chooser.params, name)
    return BadArgument(said, name=name, got=str(value)[:200], want="a value that leaves a token to choose")

"""From a label for each token to entities with their places in the text: pure functions on what the model scored.

The strategies are those of the library's token classification: `none` keeps tokens, `simple` joins neighbours of one
label, and `first`, `average` and `max` first make the tokens of a word agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ...contract import SpanResult

STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class Piece:
    """A token, or a word of several: its characters, and its score for each label [labels].

    `joined`: a token that belongs to the word of the one before.
    """

    start: int
    end: int
    scores: Tensor
    joined: bool = False


def entities(
    pieces: Sequence[Piece], names: Mapping[int, str], strategy: str, ignored: Sequence[str], text: str
) -> list[SpanResult]:
    """The entities of a text in their order, without the labels that are ignored."""
    if strategy in ("first", "average", "max"):
        pieces = [_word(word, strategy) for word in _words(pieces)]
    found = [_labelled(piece, names, text) for piece in pieces]
    if strategy != "none":
        found = [_entity(group, text) for group in _groups(found)]
    return [span for span in found if span.label not in ignored]


def longest(spans: Sequence[SpanResult]) -> list[SpanResult]:
    """Of entities that overlap, found in windows of one text, the longest; of equally long ones the surest."""
    kept: list[SpanResult] = []
    for span in sorted(spans, key=lambda span: span.start):
        last = kept[-1] if kept else None
        if last is None or span.start >= last.end:
            kept.append(span)
        elif (span.end - span.start, span.score) > (last.end - last.start, last.score):
            kept[-1] = span
    return kept


def _words(pieces: Sequence[Piece]) -> list[list[Piece]]:
    words: list[list[Piece]] = []
    for piece in pieces:
        if piece.joined and words:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _word(word: Sequence[Piece], strategy: str) -> Piece:
    scores = word[0].scores
    if strategy == "average":
        scores = torch.stack([piece.scores for piece in word]).mean(dim=0)
    elif strategy == "max":
        scores = max((piece.scores for piece in word), key=lambda scores: float(scores.max()))
    return replace(word[0], end=word[-1].end, scores=scores)


def _labelled(piece: Piece, names: Mapping[int, str], text: str) -> SpanResult:
    best = int(piece.scores.argmax())
    return SpanResult(names[best], float(piece.scores[best]), piece.start, piece.end, text[piece.start : piece.end])


def _groups(spans: Sequence[SpanResult]) -> list[list[SpanResult]]:
    """Neighbours with one tag; a label that begins with `B-` begins an entity."""
    groups = [[span] for span in spans[:1]]
    for before, span in pairwise(spans):
        if _tag(span.label) == _tag(before.label) and not span.label.startswith("B-"):
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _entity(group: Sequence[SpanResult], text: str) -> SpanResult:
    start, end = group[0].start, group[-1].end
    score = sum(span.score for span in group) / len(group)
    return SpanResult(group[0].label.split("-", 1)[-1], score, start, end, text[start:end])


def _tag(label: str) -> str:
    return label[2:] if label[:2] in ("B-", "I-") else label

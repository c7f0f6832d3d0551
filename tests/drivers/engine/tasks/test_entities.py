"""From a label for each token to entities: what holds for any scores."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.contract import SpanResult
from llmos.drivers.engine.tasks.entities import STRATEGIES, Piece, entities, longest

NAMES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "LOC"}
TEXT = "Ada Lovelace wrote in London"
CHARACTERS = ((0, 3), (4, 8), (8, 12), (13, 18), (19, 21), (22, 28))


def pieces(*labels: int, joined: tuple[int, ...] = (2,), sure: float = 0.7) -> list[Piece]:
    """The words of the text; `Lovelace` has two tokens. Each gets a label with a certain score."""
    made = []
    for at, (label, (start, end)) in enumerate(zip(labels, CHARACTERS, strict=True)):
        scores = torch.full((4,), (1 - sure) / 3)
        scores[label] = sure
        made.append(Piece(start, end, scores, at in joined))
    return made


def found(given: list[Piece], strategy: str, ignored: tuple[str, ...] = ("O",)) -> list[tuple[str, str]]:
    return [(span.label, span.text) for span in entities(given, NAMES, strategy, ignored, TEXT)]


def test_tokens_are_kept_as_they_are_without_a_strategy() -> None:
    assert found(pieces(1, 2, 0, 0, 0, 3), "none") == [("B-PER", "Ada"), ("I-PER", "Love"), ("LOC", "London")]


def test_neighbours_of_one_label_are_joined() -> None:
    assert found(pieces(1, 2, 2, 0, 0, 3), "simple") == [("PER", "Ada Lovelace"), ("LOC", "London")]


def test_a_new_beginning_is_a_new_entity() -> None:
    assert found(pieces(1, 1, 2, 0, 3, 3), "simple") == [("PER", "Ada"), ("PER", "Lovelace"), ("LOC", "in London")]


def test_the_tokens_of_a_word_agree() -> None:
    mixed = pieces(0, 3, 2, 0, 0, 0)
    assert found(mixed, "simple") == [("LOC", "Love"), ("PER", "lace")]
    assert found(mixed, "first") == [("LOC", "Lovelace")]
    surer = [*mixed[:2], pieces(0, 0, 2, 0, 0, 0, sure=0.9)[2], *mixed[3:]]
    assert found(surer, "max") == [("PER", "Lovelace")]
    assert found(surer, "average") == [("PER", "Lovelace")]
    (span,) = entities(surer, NAMES, "average", ["O"], TEXT)
    assert span.score == pytest.approx((0.9 + 0.1) / 2)


def test_the_score_of_an_entity_is_the_mean_of_its_tokens() -> None:
    (span,) = entities([*pieces(1, 2, 2, 0, 0, 0, sure=0.5)[:1], *pieces(0, 2, 2, 0, 0, 0, sure=0.8)[1:]], NAMES,
                       "simple", ["O"], TEXT)  # fmt: skip
    assert span.score == pytest.approx((0.5 + 0.8 + 0.8) / 3)


def test_nothing_has_no_entities() -> None:
    assert all(entities([], NAMES, strategy, ["O"], "") == [] for strategy in STRATEGIES)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=12),
    st.sampled_from(STRATEGIES),
)
def test_entities_come_in_order_and_share_no_characters(shape: list[tuple[int, int, int, bool]], strategy: str) -> None:
    made, at = [], 0
    for length, gap, label, joined in shape:
        scores = torch.zeros(4)
        scores[label] = 1.0
        made.append(Piece(at, at + length, scores, joined))
        at += length + gap
    text = "x" * at
    spans = entities(made, NAMES, strategy, [], text)
    assert all(one.end <= other.start for one, other in pairwise(spans))
    covered = {place for span in spans for place in range(span.start, span.end)}
    assert covered >= {place for piece in made for place in range(piece.start, piece.end)}


def span(start: int, end: int, score: float) -> SpanResult:
    return SpanResult("PER", score, start, end, "")


def test_of_overlapping_entities_the_longest_stays_and_of_equals_the_surest() -> None:
    assert longest([span(3, 6, 0.9), span(0, 4, 0.5)]) == [span(0, 4, 0.5)]
    assert longest([span(0, 4, 0.5), span(2, 6, 0.9)]) == [span(2, 6, 0.9)]
    assert longest([span(0, 4, 0.9), span(2, 6, 0.5), span(6, 7, 0.1)]) == [span(0, 4, 0.9), span(6, 7, 0.1)]
    assert longest([]) == []

"""Entities against all spans tried one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.metrics.spans import Span, entities, spans

TAGS = st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), max_size=9)
SENTENCES = st.lists(TAGS.flatmap(lambda tags: st.tuples(st.just(tags), st.permutations(tags))), max_size=5)


def tried(tags: Sequence[str]) -> set[Span]:
    """A span is an entity when its first word begins one, the others go on, and the next one does not."""
    found = set()
    for kind in ("X", "Y"):
        for first in range(len(tags)):
            for last in range(first + 1, len(tags) + 1):
                open_before = first > 0 and tags[first - 1] in (f"B-{kind}", f"I-{kind}")
                begins = tags[first] == f"B-{kind}" or (tags[first] == f"I-{kind}" and not open_before)
                inside = all(tag == f"I-{kind}" for tag in tags[first + 1 : last])
                ends = last == len(tags) or tags[last] != f"I-{kind}"
                if begins and inside and ends:
                    found.add((kind, first, last))
    return found


@given(TAGS)
def test_spans_are_those_that_trying_finds(tags: list[str]) -> None:
    assert spans(tags) == sorted(tried(tags), key=lambda span: span[1])


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-X E-X S-X I-X O", [("X", 0, 2), ("X", 2, 3), ("X", 3, 4)]),
        ("B-X L-X U-X O E-X", [("X", 0, 2), ("X", 2, 3), ("X", 4, 5)]),
        ("I-X I-X B-X I-Y", [("X", 0, 2), ("X", 2, 3), ("Y", 3, 4)]),
        ("X X O Y X", [("X", 0, 2), ("Y", 3, 4), ("X", 4, 5)]),
        ("B I O B", [("", 0, 2), ("", 3, 4)]),
        ("B-date-of-birth I-date-of-birth", [("date-of-birth", 0, 2)]),
        ("EL EL IB", [("EL", 0, 2), ("IB", 2, 3)]),
        ("O O", []),
    ],
)
def test_schemes_of_tags(tags: str, found: list[Span]) -> None:
    assert spans(tags.split()) == found


@given(SENTENCES)
def test_figures_count_whole_entities(sentences: list[tuple[list[str], list[str]]]) -> None:
    said, wanted = [one for one, _ in sentences], [other for _, other in sentences]
    mine = {(n, *span) for n, tags in enumerate(said) for span in tried(tags)}
    theirs = {(n, *span) for n, tags in enumerate(wanted) for span in tried(tags)}
    found = entities(said, wanted)
    if not mine and not theirs:
        assert set(found.values()) == {1.0}
        return
    assert found["entity_precision"] == (len(mine & theirs) / len(mine) if mine else 0)
    assert found["entity_recall"] == (len(mine & theirs) / len(theirs) if theirs else 0)
    assert found["entity_f1"] == pytest.approx(2 * len(mine & theirs) / (len(mine) + len(theirs)))
    each = []
    for kind in {span[1] for span in mine | theirs}:
        of = [{span for span in side if span[1] == kind} for side in (mine, theirs)]
        each.append(2 * len(of[0] & of[1]) / (len(of[0]) + len(of[1])))
    assert found["entity_f1_macro"] == pytest.approx(sum(each) / len(each))


def test_sentences_have_to_be_the_same() -> None:
    with pytest.raises(ValueError, match="2 words, 1 tags"):
        entities([["O"]], [["O", "O"]])
    with pytest.raises(ValueError, match="shorter"):
        entities([["O"]], [])

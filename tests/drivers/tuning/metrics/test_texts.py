"""Figures of texts against other reckonings."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from llmos.drivers.tuning.metrics import texts
from torchmetrics.functional.text import squad

ANSWERS = st.text("aA bthe.,-é1", max_size=12)


def test_perplexity_of_an_even_choice_is_its_size() -> None:
    assert texts.perplexity(torch.full((5,), math.log(7.0))) == pytest.approx(7)
    assert texts.perplexity(torch.tensor([1e9])) == math.exp(700), "a number, whatever the loss"


def test_what_is_written_as_wanted_is_1_and_anything_else_less() -> None:
    text = "the quick brown fox jumps over the dog"
    assert set(texts.written([text], [text]).values()) == {1.0}
    found = texts.written(["the quick brown fox sits on the cat"], [text])
    # of 8 words 5 are right, of 7 pairs 3, of 6 triples 2, of 5 fours 1; the longest common run of words has 5
    assert found["bleu"] == pytest.approx((5 / 8 * 3 / 7 * 2 / 6 * 1 / 5) ** 0.25)
    assert (found["rouge1"], found["rouge2"], found["rougel"]) == pytest.approx((5 / 8, 3 / 7, 5 / 8))


def test_short_texts_are_no_better_for_bleu() -> None:
    """Of all texts together, with the penalty of brevity (Papineni et al. 2002)."""
    found = texts.written(["a b c d e", "f g h i"], ["a b c d e x y", "f g h i z"])
    assert found["bleu"] == pytest.approx(math.exp(1 - 12 / 9))


@pytest.mark.parametrize("said", [[], ["a"]])
def test_texts_have_to_be_as_many(said: list[str]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        texts.written(said, [])


@given(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=3))
def test_answers_are_judged_as_squad_does(said: str, right: list[str]) -> None:
    exact, near = texts.answers([said], [right])
    wanted = [{"answers": {"text": right, "answer_start": [0] * len(right)}, "id": "1"}]
    theirs = squad([{"prediction_text": said, "id": "1"}], wanted)
    assert float(exact) == float(theirs["exact_match"]) / 100
    if said.strip(" .,-"):  # of answers without words the library knows no match of words
        assert float(near) == pytest.approx(float(theirs["f1"]) / 100, abs=1e-5)


def test_no_answer_is_right_where_there_is_none() -> None:
    exact, near = texts.answers(["", "The", "cat", ""], [[""], [""], [""], ["cat"]])
    assert exact.tolist() == near.tolist() == [1, 1, 0, 0]


@example(begin=5, end=2, first=0, more=1)  # an end before its beginning is no token, not fewer than none
@given(*[st.integers(0, 9)] * 4)
def test_places_are_compared_token_by_token(begin: int, end: int, first: int, more: int) -> None:
    last = first + more
    mine, theirs = set(range(begin, end + 1)), set(range(first, last + 1))
    exact, near = texts.ends(torch.tensor([[begin, end]]), torch.tensor([[first, last]]))
    assert bool(exact) == ((begin, end) == (first, last))
    assert float(near) == pytest.approx(2 * len(mine & theirs) / (len(mine) + len(theirs)), abs=1e-6)

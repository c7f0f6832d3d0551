"""Copies of rows are changed as asked, and the same for the same seed; what is learned of them stays."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.augment import FIELDS, Augmenter, changed
from llmos.drivers.tuning.data.schema import SCHEMAS
from llmos.drivers.tuning.options.augment import Augment
from llmos.syscalls.errors import BadArgument
from training_data import recipe

TEXTS = st.text("abc é.,\n\t", max_size=30).filter(str.strip)
ROW = {"text": "the quick brown fox jumps over the lazy dog", "label": 3}


def augmenter(schema: str = "label", seed: int = 0, **asked: Any) -> Augmenter:
    return Augmenter(recipe("classification", seed=seed, options={"augment": asked} if asked else {}), schema)


def made(asked: Augment, text: str, seed: int = 0) -> str:
    return changed(text, asked, random.Random(seed))


@given(TEXTS, st.integers(0, 99))
def test_nothing_asked_changes_nothing(text: str, seed: int) -> None:
    assert made(Augment(), text, seed) == text


@given(TEXTS, st.integers(0, 99), st.floats(0, 0.9))
def test_words_that_are_dropped_leave_the_others_in_order(text: str, seed: int, share: float) -> None:
    words, some = text.split(), made(Augment(drop_words=share), text, seed).split()
    assert some
    at = -1
    for word in some:
        at = words.index(word, at + 1)


@given(TEXTS, st.integers(0, 99))
def test_words_that_change_places_are_the_same_words(text: str, seed: int) -> None:
    other = made(Augment(swap_words=0.5), text, seed)
    assert Counter(other.split()) == Counter(text.split()) and len(other) == len(text)


@given(st.text("abcdef", min_size=1, max_size=12), st.integers(0, 99))
def test_a_slip_of_the_pen_is_one_letter(word: str, seed: int) -> None:
    other = made(Augment(typos=0.999999), word, seed)
    if len(word) < 3:
        assert other == word
        return
    left_out = {word[:n] + word[n + 1 :] for n in range(len(word))}
    swapped = {word[:n] + word[n + 1] + word[n] + word[n + 2 :] for n in range(len(word) - 1)}
    doubled = {word[:n] + word[n] + word[n:] for n in range(len(word))}
    assert other in left_out | swapped | doubled and (other[0], other[-1]) in {(word[0], word[-1]), (word[0], word[-2])}


def test_words_of_the_same_meaning_keep_their_signs_and_capitals() -> None:
    asked = Augment(synonyms=(("quick", ("fast", "swift")),), synonym_share=1.0)
    seen = {made(asked, "Quick, quick (quick)! quickly", seed) for seed in range(200)}
    assert len(seen) == 8
    assert all(text.split(",")[0] in ("Fast", "Swift") and text.endswith("quickly") for text in seen)


@pytest.mark.parametrize(("field", "share"), [("typos", 0.25), ("drop_words", 0.1), ("synonym_share", 0.4)])
def test_shares_are_what_is_asked_for(field: str, share: float) -> None:
    asked = Augment(**{field: share}, synonyms=(("word", ("term",)),) if field == "synonym_share" else ())
    text = "word " * 4000
    other = made(asked, text).split()
    changes = 4000 - len(other) if field == "drop_words" else sum(word != "word" for word in other)
    # a slip that swaps or doubles equal letters shows no change; "word" has none
    assert abs(changes / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_copies_depend_on_the_seed_and_the_row_alone() -> None:
    first, again = (list(augmenter(copies=3, typos=0.5).copies(ROW, b"1")) for _ in range(2))
    assert first == again and len(first) == 3
    assert all(copy["label"] == 3 and copy["text"] != ROW["text"] for copy in first)
    assert len({copy["text"] for copy in first}) == 3
    assert list(augmenter(copies=3, typos=0.5, seed=1).copies(ROW, b"1")) != first
    assert list(augmenter(copies=3, typos=0.5).copies(ROW, b"2")) != first


def test_copies_that_say_the_same_are_left_out() -> None:
    assert list(augmenter(copies=5, synonyms={"cat": ["pet"]}).copies(ROW, b"1")) == []
    assert len(list(augmenter(copies=9, synonyms={"fox": ["pet"]}, synonym_share=1).copies(ROW, b"1"))) == 1
    assert list(augmenter().copies(ROW, b"1")) == []


def test_only_what_is_read_changes() -> None:
    row = {"prompt": "some words to read", "completion": "some words to read"}
    (copy,) = augmenter("completion", typos=0.9).copies(row, b"1")
    assert copy["completion"] == row["completion"] and copy["prompt"] != row["prompt"]
    tagged = {"tokens": ["quick", "foxes", "at", "home"], "tags": [0, 1, 2, 3]}
    (copy,) = augmenter("tags", typos=0.9, drop_words=0.9, swap_words=0.9).copies(tagged, b"1")
    assert copy["tags"] == tagged["tags"] and len(copy["tokens"]) == 4 and copy["tokens"] != tagged["tokens"]
    assert copy["tokens"][2] == "at"


@pytest.mark.parametrize("schema", sorted(set(SCHEMAS) - set(FIELDS)))
def test_rows_of_which_all_is_learned_are_not_changed(schema: str) -> None:
    with pytest.raises(BadArgument, match=f"augment has no meaning for rows of {schema}"):
        augmenter(schema, typos=0.1)
    augmenter(schema)


def test_fields_are_those_of_schemas() -> None:
    assert all(set(fields) <= set(SCHEMAS[schema]) for schema, fields in FIELDS.items())

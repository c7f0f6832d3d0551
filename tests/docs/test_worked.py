"""The worked examples: their corpora keep what is judged apart, and each runs from raw text to a served model."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sources import ROOT

FOLDER = ROOT / "docs" / "examples" / "worked"
PAGE = ROOT / "docs" / "worked-examples.md"
MODULES = ("common", "encoders", "ner", "ner_corpus", "real_text", "reviews", "sentiment")


@pytest.fixture(scope="module")
def worked() -> Iterator[Any]:
    """Imports a module of the examples as they import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


# ---- corpora


def test_sentences_are_the_same_for_a_seed_and_others_for_another(worked: Any) -> None:
    made = worked("ner_corpus").sentences
    assert made(50, 1, False) == made(50, 1, False) != made(50, 2, False)
    assert made(50, 1, False) != made(50, 1, True)


def test_every_word_of_a_sentence_has_a_tag_and_entities_begin_with_b(worked: Any) -> None:
    corpus = worked("ner_corpus")
    for sentence in corpus.sentences(500, 3, False):
        assert len(sentence.tokens) == len(sentence.tags) and set(sentence.tags) <= set(corpus.TAGS)
        for before, tag in zip(("O", *sentence.tags), sentence.tags, strict=False):
            assert not tag.startswith("I-") or before[2:] == tag[2:]


def test_no_name_that_is_judged_stands_in_text_that_is_learned_from(worked: Any) -> None:
    corpus = worked("ner_corpus")
    learned = {name for each in corpus.sentences(3000, 1, False) for name in corpus.names_of(each)}
    judged = {name for each in corpus.sentences(500, 4, True) for name in corpus.names_of(each)}
    assert len(learned) > 100 and len(judged) > 50 and not learned & judged


def test_a_name_is_a_person_here_and_a_firm_or_a_town_there(worked: Any) -> None:
    corpus = worked("ner_corpus")
    kinds: dict[str, set[str]] = {}
    for each in corpus.sentences(3000, 1, False):
        for token, tag in zip(each.tokens, each.tags, strict=True):
            if tag.startswith("B-"):
                kinds.setdefault(token, set()).add(tag)
    assert sum(len(found) > 1 for name, found in kinds.items() if name in corpus.POOL) > 100


def test_reviews_are_the_same_for_a_seed_and_no_judged_one_is_learned(worked: Any) -> None:
    made = worked("reviews").reviews
    assert made(100, 1, False) == made(100, 1, False) != made(100, 2, False)
    learned = {each.text for each in made(3000, 1, False)}
    judged = {each.text for each in made(800, 2, True)}
    assert (len(learned), len(judged)) == (3000, 800) and not learned & judged


def test_the_stream_turns_where_it_is_told_to(worked: Any) -> None:
    posted = worked("reviews").stream(1000, 5, 500)
    bad = [each.label == "negative" for each in posted]
    assert sum(bad[:500]) < 0.4 * 500 and sum(bad[500:]) > 0.65 * 500


def test_no_paragraph_of_a_topic_that_is_judged_is_learned_from(worked: Any) -> None:
    rows = worked("real_text").rows
    learned, judged = ({row["text"] for row in rows(side)} for side in (False, True))
    assert len(judged) > 100 and len(learned) > 3 * len(judged)
    assert not learned & judged


# ---- the alert


def test_an_alert_is_raised_once_and_cleared_when_it_is_over(worked: Any) -> None:
    watch = worked("sentiment").Watch()
    assert [watch.take(False) for _ in range(50)] == [""] * 50
    said = [watch.take(True) for _ in range(100)]
    assert said.count("raised") == 1 and set(said) == {"", "raised"}
    assert [change for change in (watch.take(False) for _ in range(100)) if change] == ["cleared"]


def test_an_alert_between_its_bounds_stays_as_it_is(worked: Any) -> None:
    watch = worked("sentiment").Watch(share=0.5)
    assert not any(watch.take(n % 2 == 0) for n in range(400)) and not watch.raised
    watch = worked("sentiment").Watch(share=0.5, raised=True)
    assert not any(watch.take(n % 2 == 0) for n in range(400)) and watch.raised


# ---- whole


def test_the_page_has_a_place_for_what_each_measures() -> None:
    text = PAGE.read_text()
    for name in ("real-text", "ner", "sentiment"):
        assert text.index(f"<!-- measured: {name}; make examples -->") < text.index(f"<!-- end: {name} -->")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"),
    [("real-text", "| lora |"), ("ner", "raw text, then labels"), ("sentiment", "Area under the ROC curve")],
)
def test_an_example_runs_from_raw_text_to_a_served_model(name: str, says: str, folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(f"a\n<!-- measured: {name}; make examples -->\nold\n<!-- end: {name} -->\nb\n")
    command = [sys.executable, str(FOLDER / "all.py"), name, "--quick", "--write", str(page)]
    env = {**os.environ, "TMPDIR": str(folder)}
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert says in shown.stdout and says in page.read_text() and "old" not in page.read_text()
    assert page.read_text().startswith("a\n") and page.read_text().endswith("-->\nb\n")

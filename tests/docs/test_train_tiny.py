"""The corpus of the bundled model: held-out text stays out, and every command is one the real parser accepts."""

import importlib
import pydoc_data.topics
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llmos.userland.cli.parser import parse_line
from llmos.userland.cli.table import COMMANDS

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "train-tiny"
DRAWN = 3000


pytestmark = pytest.mark.slow  # drawing the examples takes half a minute


@pytest.fixture(scope="module")
def corpus() -> Iterator[ModuleType]:
    """The corpus module of the example, imported as its scripts import it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("corpus")
    for name in ("corpus", "grammar", "names"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def docs(corpus: Any) -> list[str]:
    found: list[str] = corpus.docstrings(held_out=False)
    return found


@pytest.fixture(scope="module")
def training(corpus: Any, docs: list[str]) -> list[Any]:
    drawer = corpus.Corpus(docs, seed=11)
    return [drawer.example() for _ in range(DRAWN)]


def test_every_command_is_accepted_by_the_parser(corpus: Any, docs: list[str], training: list[Any]) -> None:
    unseen = corpus.Corpus(docs, seed=12, wording="templates", held_out_names=True)
    for example in [*training, *(unseen.example() for _ in range(DRAWN))]:
        if example.command != corpus.UNKNOWN:
            parse_line(example.command)


def test_every_command_of_the_shell_is_taught(training: list[Any]) -> None:
    taught = {example.command.split()[0] for example in training}
    expected = {command.name for command in COMMANDS if command.shell and command.taught} - {"ask"}
    assert taught - {"unknown"} == expected


@pytest.mark.parametrize("wording", ["phrasings", "templates"])
def test_no_held_out_phrasing_is_drawn_for_training(
    corpus: Any, docs: list[str], training: list[Any], wording: str
) -> None:
    drawer = corpus.Corpus(docs, seed=13, wording=wording)
    unseen = {example.phrasing.split(" + ")[0] for example in (drawer.example() for _ in range(DRAWN))}
    seen = {example.phrasing.split(" + ")[0] for example in training}
    assert len(unseen) > 50
    assert not unseen & seen


def test_no_part_of_a_held_out_name_is_drawn_for_training(corpus: Any, docs: list[str], training: list[Any]) -> None:
    names = importlib.import_module("names")
    avoid = corpus.Corpus(docs, seed=0).names.avoid
    drawer = names.Names(random.Random(14), held_out=True, words=["word"], commands=["ps"], avoid=avoid)
    held_out = {drawer.name() for _ in range(2000)} | {drawer.task() for _ in range(2000)}
    assert all(names.is_held_out(name) for name in held_out)
    in_scope = (example for example in training if example.command != corpus.UNKNOWN)
    said = {part for example in in_scope for part in re.split(r"[/\s]", f"{example.request} {example.command}")}
    assert not held_out & said


def test_docstrings_are_split_and_leave_the_reserved_topics_alone(corpus: Any, docs: list[str]) -> None:
    assert not set(docs) & set(corpus.docstrings(held_out=True))
    text = " ".join(" ".join(docs).split())
    paragraphs = [
        " ".join(paragraph.split())
        for topic in pydoc_data.topics.topics.values()
        for paragraph in topic.split("\n\n")
    ]
    long = [paragraph for paragraph in paragraphs if len(paragraph) > 200]
    assert len(long) > 500
    assert not [paragraph for paragraph in long if paragraph in text]

"""Words for masks: those of the library's pipeline."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import transformers
from tiny_kinds import answer, ask, forward_runner, load, text_model, together_and_alone

from llmos.drivers.contract import DoneEvent, LabelsResult, SpansResult
from llmos.drivers.engine.forward import ForwardRunner
from llmos.drivers.engine.tasks.masks import FillMask
from llmos.drivers.engine.tasks.text import TextFront
from llmos.syscalls.errors import BadArgument

TASK = "fill-mask"
TEXTS = ("the quick [MASK] fox", "[MASK]", "tokens are [MASK] of text: def f", "the lazy dog and the [MASK]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("m"), "BertForMaskedLM", scale=8.0)


@pytest.fixture(scope="module")
def runner(folder: Path) -> ForwardRunner:
    return forward_runner(load(folder))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    made: Any = transformers.pipeline
    return made(TASK, model=str(folder))


def words(event: DoneEvent) -> list[tuple[str, float]]:
    assert isinstance(event.result, LabelsResult)
    return [(each.label, each.score) for each in event.result.labels]


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [word for word, _ in found] == [word for word, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"targets": ["fox", "dog", "text"]}])
def test_words_are_those_of_the_pipeline(runner: ForwardRunner, pipe: Any, options: dict[str, Any]) -> None:
    requests = [ask(text, TASK, text, **options) for text in TEXTS]
    best = set()
    for text, *both in zip(TEXTS, *together_and_alone(runner, requests), strict=True):
        expected = [(each["token_str"], each["score"]) for each in pipe(text, **options)]
        for event in both:
            same(words(event), expected)
        best.add(expected[0][0])
    assert len(best) >= 2


def test_several_masks_have_a_place_each(runner: ForwardRunner, pipe: Any) -> None:
    text = "the [MASK] brown fox and [MASK] dog"
    event = answer(runner, text, TASK, top_k=3)
    assert isinstance(event.result, SpansResult)
    expected = [(each["token_str"], each["score"]) for mask in pipe(text, top_k=3) for each in mask]
    same([(span.label, span.score) for span in event.result.spans], expected)
    places = [(span.start, span.end) for span in event.result.spans]
    assert places == [(4, 10)] * 3 + [(25, 31)] * 3
    assert {span.text for span in event.result.spans} == {"[MASK]"}


def test_ids_with_a_mask_are_taken(runner: ForwardRunner, folder: Path) -> None:
    ids = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]
    same(words(answer(runner, ids, TASK)), words(answer(runner, TEXTS[0], TASK)))


def test_a_target_of_several_tokens_stands_for_its_first(runner: ForwardRunner, pipe: Any) -> None:
    whole = words(answer(runner, TEXTS[0], TASK, targets=["foxtext", "dog"]))
    same(whole, [(each["token_str"], each["score"]) for each in pipe(TEXTS[0], targets=["foxtext", "dog"])])


def test_batches_are_kept_small_where_the_vocabulary_is_large(folder: Path) -> None:
    bundle = load(folder)
    assert FillMask(TextFront(bundle)).batch_tokens == 8192
    many = dataclasses.replace(bundle, vocabulary=250_000)
    assert FillMask(TextFront(many)).batch_tokens == 268


@pytest.mark.parametrize(
    ("text", "options", "name"),
    [("no mask here", {}, "input"), (TEXTS[0], {"top_k": 0}, "top_k"), (TEXTS[0], {"targets": [""]}, "targets"),
     (TEXTS[0], {"targets": "fox"}, "targets"), (["a [MASK]", "b"], {}, "input")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(runner: ForwardRunner, text: Any, options: dict[str, Any], name: str) -> None:
    with pytest.raises(BadArgument) as error:
        runner.submit(ask(text, TASK, **options))
    assert error.value.name == name

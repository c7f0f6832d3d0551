"""Entities and answers: those of the library's pipeline, and of the plain model where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_kinds import SENTENCES, answer, ask, forward_runner, labels, load, pair_tokenizer, text_model
from tiny_kinds import together_and_alone as both_ways
from tiny_models import byte_level

from llmos.drivers.contract import AnswerResult, DoneEvent, SpanResult, SpansResult
from llmos.drivers.engine.forward import ForwardRunner
from llmos.drivers.engine.tasks import spans as module_of_spans
from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge

NER = "token-classification"
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
STRATEGIES = ("none", "simple", "first", "average", "max")
LONG = " ".join(SENTENCES * 8)


@pytest.fixture(scope="module", params=["pieces of words", "bytes"])
def tagger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a tokenizer that knows words, and with one that does not."""
    tokenizer = pair_tokenizer() if request.param != "bytes" else byte_level()
    tokenizer.model_max_length = 128
    folder = tmp_path_factory.mktemp("m")
    return text_model(folder, "BertForTokenClassification", tokenizer=tokenizer, varied=True, **labels(*LABELS))


def spans(event: DoneEvent) -> Sequence[SpanResult]:
    assert isinstance(event.result, SpansResult)
    return event.result.spans


def pipeline(folder: Path, **options: Any) -> Any:
    made: Any = transformers.pipeline
    return made(NER, model=str(folder), **options)


def same(found: Sequence[SpanResult], expected: list[dict[str, Any]], text: str) -> None:
    assert [(span.label, span.start, span.end) for span in found] == [
        (each.get("entity_group", each.get("entity")), each["start"], each["end"]) for each in expected
    ]
    assert [span.score for span in found] == pytest.approx([float(each["score"]) for each in expected], abs=1e-5)
    assert all(span.text == text[span.start : span.end] for span in found)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_entities_are_those_of_the_pipeline(tagger: Path, strategy: str) -> None:
    runner, pipe = forward_runner(load(tagger)), pipeline(tagger, aggregation_strategy=strategy)
    requests = [ask(text, NER, text, aggregation_strategy=strategy) for text in SENTENCES]
    found = set()
    for text, *events in zip(SENTENCES, *both_ways(runner, requests), strict=True):
        expected = pipe(text)
        for event in events:
            same(spans(event), expected, text)
        found |= {span.label for span in spans(events[0])}
    assert len(found) >= 2


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_labels_to_leave_out_are_chosen(tagger: Path) -> None:
    runner, pipe = forward_runner(load(tagger)), pipeline(tagger, aggregation_strategy="simple", ignore_labels=["PER"])
    for text in SENTENCES[:4]:
        event = answer(runner, text, NER, aggregation_strategy="simple", ignore_labels=["PER"])
        same(spans(event), pipe(text), text)
    every = answer(runner, SENTENCES[1], NER, ignore_labels=[])
    assert len(spans(every)) == every.prompt_tokens - 2 * (runner._tasks[NER]._front.tokenizer.cls_token is not None)  # type: ignore[attr-defined]


def test_a_long_text_is_read_in_windows(tmp_path: Path) -> None:
    folder = text_model(tmp_path, "BertForTokenClassification", varied=True, **labels(*LABELS))
    runner, pipe = forward_runner(load(folder)), pipeline(folder, aggregation_strategy="simple", stride=32)
    with pytest.raises(TooLarge):
        runner.submit(ask(LONG, NER))
    event = answer(runner, LONG, NER, aggregation_strategy="simple", stride=32)
    assert event.prompt_tokens > 3 * 128
    same(spans(event), pipe(LONG), LONG)


def test_a_wrong_offset_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with the pipeline fails when a token's characters are off by one."""
    folder = text_model(tmp_path, "BertForTokenClassification", varied=True, **labels(*LABELS))
    runner, pipe = forward_runner(load(folder)), pipeline(folder)
    piece = module_of_spans.Piece
    monkeypatch.setattr(module_of_spans, "Piece", lambda start, end, *more: piece(start + 1, end, *more))
    with pytest.raises(AssertionError):
        same(spans(answer(runner, SENTENCES[0], NER, ignore_labels=[])), pipe(SENTENCES[0], ignore_labels=[]), "")


@pytest.mark.parametrize(
    ("given", "options", "name"),
    [
        ("fox", {"aggregation_strategy": "best"}, "aggregation_strategy"), ("fox", {"stride": 4}, "stride"),
        ("fox", {"stride": 126, "aggregation_strategy": "max"}, "stride"), (["fox", "dog"], {}, "input"),
        ([2, 40, 3], {}, "input"), ("", {"stride": 4, "aggregation_strategy": "max"}, "input"),
        ("fox", {"ignore_labels": "O"}, "ignore_labels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    taggers: ForwardRunner, given: Any, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(BadArgument) as error:
        taggers.submit(ask(given, NER, **options))
    assert error.value.name == name


@pytest.fixture(scope="module")
def taggers(tmp_path_factory: pytest.TempPathFactory) -> ForwardRunner:
    folder = tmp_path_factory.mktemp("m")
    return forward_runner(load(text_model(folder, "BertForTokenClassification", **labels(*LABELS))))


# ---- questions

ASK = "question-answering"
CONTEXT = "the quick brown fox jumps over the lazy dog and the other dog. tokens are pieces of text, it's fine"


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("m"), "BertForQuestionAnswering", scale=8.0)


def best_by_hand(folder: Path, question: str, text: str, longest: int = 15) -> tuple[float, int, int]:
    """Every pair of tokens of the text tried, whole words; of a text that needs no windows."""
    module: Any = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)
    made = transformers.AutoTokenizer.from_pretrained(folder)(question, text, return_tensors="pt")
    with torch.inference_mode():
        out = module(**made)
    own = [at for at, part in enumerate(made.sequence_ids(0)) if part == 1]
    kept = [0, *own]
    first, last = (logits[0][kept].softmax(dim=-1).tolist()[1:] for logits in (out.start_logits, out.end_logits))
    pairs = [
        (first[one] * last[two], own[one], own[two])
        for one in range(len(own))
        for two in range(one, min(one + longest, len(own)))
    ]
    score, start, end = max(pairs)
    words = [made.token_to_word(0, at) for at in (start, end)]
    return score, made.word_to_chars(0, words[0], 1).start, made.word_to_chars(0, words[1], 1).end


def found(event: DoneEvent) -> AnswerResult:
    assert isinstance(event.result, AnswerResult)
    return event.result


def test_answers_are_the_best_pairs_of_the_plain_model(answerer: Path) -> None:
    runner, seen = forward_runner(load(answerer)), set()
    requests = [ask([question, CONTEXT], ASK, question) for question in SENTENCES]
    for question, *events in zip(SENTENCES, *both_ways(runner, requests), strict=True):
        score, start, end = best_by_hand(answerer, question, CONTEXT)
        for event in events:
            best = found(event)
            assert (best.start, best.end, best.text) == (start, end, CONTEXT[start:end])
            assert best.score == pytest.approx(score, rel=1e-4)
        seen.add(start)
    assert len(seen) >= 2


def test_an_answer_is_as_short_as_asked(answerer: Path) -> None:
    runner = forward_runner(load(answerer))
    for question in SENTENCES:
        one = found(answer(runner, [question, CONTEXT], ASK, max_answer_tokens=1, whole_words=False))
        score, start, end = best_by_hand(answerer, question, CONTEXT, longest=1)
        assert one.score == pytest.approx(score, rel=1e-4) and start <= one.start < one.end <= end


def test_a_long_text_is_searched_window_by_window(answerer: Path) -> None:
    runner, text = forward_runner(load(answerer)), " ".join([CONTEXT] * 8)
    tokenizer = transformers.AutoTokenizer.from_pretrained(answerer)
    event = answer(runner, ["fox", text], ASK, window=64, stride=16)
    assert event.prompt_tokens > 128
    made = tokenizer(
        "fox", text, truncation="only_second", max_length=64, stride=16, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    module: Any = transformers.AutoModelForQuestionAnswering.from_pretrained(answerer)
    best = 0.0
    for at, ids in enumerate(made["input_ids"]):
        with torch.inference_mode():
            out = module(torch.tensor([ids]), token_type_ids=torch.tensor([made["token_type_ids"][at]]))
        kept = [place for place, part in enumerate(made.sequence_ids(at)) if part == 1 or place == 0]
        first, last = (logits[0][kept].softmax(dim=-1)[1:] for logits in (out.start_logits, out.end_logits))
        best = max(best, float(torch.outer(first, last).triu().tril(14).max()))
    assert found(event).score == pytest.approx(best, rel=1e-4)
    assert text[found(event).start : found(event).end] == found(event).text != ""


def test_no_answer_is_said_where_that_is_likelier(answerer: Path) -> None:
    bundle = load(answerer)
    runner = forward_runner(bundle)
    weights = bundle.module.qa_outputs
    with torch.no_grad():
        weights.weight.zero_()
    sure = answer(runner, ["fox", "dog"], ASK, may_be_impossible=True)
    assert found(sure) == AnswerResult("dog", pytest.approx(0.25), 0, 3)  # type: ignore[arg-type]
    unsure = answer(runner, ["fox", "the lazy dog"], ASK, may_be_impossible=True, max_answer_tokens=1)
    assert found(unsure).text == "the" and found(unsure).score == pytest.approx(1 / 16)
    hidden = bundle.module.bert
    with torch.inference_mode():
        first = hidden(**bundle.tokenizer("fox", "the lazy dog", return_tensors="pt")).last_hidden_state[0, 0]
    with torch.no_grad():
        weights.weight[:] = first  # points at the first token
    assert found(answer(runner, ["fox", "the lazy dog"], ASK, may_be_impossible=True)).text == ""
    assert found(answer(runner, ["fox", "the lazy dog"], ASK)).text != ""


@pytest.mark.parametrize(
    ("given", "options", "error"),
    [
        ("fox", {}, BadArgument), (["fox", "dog", "text"], {}, BadArgument), (["fox", ""], {}, BadArgument),
        (["fox", "dog"], {"max_answer_tokens": 0}, BadArgument), (["fox", "dog"], {"window": 4}, TooLarge),
        (["fox", "dog"], {"window": 8, "stride": 9}, BadArgument), (["fox " * 130, "dog"], {}, TooLarge),
    ],
)  # fmt: skip
def test_a_question_that_does_not_fit_is_refused(
    answerer: Path, given: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        forward_runner(load(answerer)).submit(ask(given, ASK, **options))


def test_a_tokenizer_that_knows_no_places_is_refused(answerer: Path, taggers: ForwardRunner) -> None:
    class Slow:
        is_fast = False

    class Front:
        tokenizer = Slow()

    with pytest.raises(NotSupported, match="where tokens stand"):
        module_of_spans.need_offsets(Front(), NER)  # type: ignore[arg-type]

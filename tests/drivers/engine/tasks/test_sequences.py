"""Labels and scores of sequence classifiers: those of the library's pipelines, one by one or in shared batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_kinds import SENTENCES, answer, answers, ask, forward_runner, labels, load, text_model, together_and_alone

from llmos.drivers.contract import DoneEvent, LabelsResult, ScoresResult
from llmos.drivers.engine import packing
from llmos.drivers.engine.forward import ForwardRunner
from llmos.syscalls.errors import BadArgument, TooLarge

LABELS = ("joy", "anger", "calm", "doubt")
NLI = ("contradiction", "neutral", "entailment")


@pytest.fixture(scope="module")
def emotions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("m"), "BertForSequenceClassification", varied=True, **labels(*LABELS))


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m")
    return text_model(folder, "BertForSequenceClassification", varied=True, scale=16.0, **labels(*NLI))


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("m"), "BertForSequenceClassification", num_labels=1, scale=16.0)


def runner_of(folder: Path) -> ForwardRunner:
    return forward_runner(load(folder))


def scores(event: DoneEvent) -> list[tuple[str, float]]:
    assert isinstance(event.result, LabelsResult)
    return [(each.label, each.score) for each in event.result.labels]


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


def pipeline(task: str, folder: Path) -> Any:
    made: Any = transformers.pipeline
    return made(task, model=str(folder))


@pytest.mark.parametrize("function", [None, "softmax", "sigmoid", "none"])
def test_labels_are_those_of_the_pipeline(emotions: Path, function: str | None) -> None:
    runner, pipe = runner_of(emotions), pipeline("text-classification", emotions)
    options = {} if function is None else {"function": function}
    best = set()
    for text in SENTENCES:
        expected = pipe(text, top_k=None, **({} if function is None else {"function_to_apply": function}))
        found = scores(answer(runner, text, "text-classification", top_k=0, **options))
        same(found, [(each["label"], each["score"]) for each in expected])
        best.add(found[0][0])
    assert len(best) >= 2, "the model always says the same: the comparison would prove little"


def test_a_pair_is_read_as_one(emotions: Path) -> None:
    runner, pipe = runner_of(emotions), pipeline("text-classification", emotions)
    for text, other in zip(SENTENCES, reversed(SENTENCES), strict=True):
        expected = pipe({"text": text, "text_pair": other}, top_k=2)
        found = scores(answer(runner, [text, other], "text-classification", top_k=2))
        same(found, [(each["label"], each["score"]) for each in expected])


def test_token_ids_are_taken_as_they_are(emotions: Path) -> None:
    runner = runner_of(emotions)
    ids = transformers.AutoTokenizer.from_pretrained(emotions)(SENTENCES[0])["input_ids"]
    same(
        scores(answer(runner, ids, "text-classification")), scores(answer(runner, SENTENCES[0], "text-classification"))
    )


@pytest.mark.parametrize(("kind", "count"), [("multi_label_classification", 4), ("regression", 1), (None, 1)])
def test_scores_follow_from_what_the_model_was_trained_for(tmp_path: Path, kind: str | None, count: int) -> None:
    folder = text_model(tmp_path, "BertForSequenceClassification", **labels(*LABELS[:count]), problem_type=kind)
    runner, pipe = runner_of(folder), pipeline("text-classification", folder)
    for text in SENTENCES[:3]:
        expected = [(each["label"], each["score"]) for each in pipe(text, top_k=None)]
        same(scores(answer(runner, text, "text-classification")), expected)


FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {}, "Roberta": {"type_vocab_size": 1, "pad_token_id": 0}, "Albert": {"embedding_size": 16},
    "Electra": {}, "DistilBert": {"dim": 32, "n_heads": 2, "hidden_dim": 64, "n_layers": 2},
    "ModernBert": {"global_attn_every_n_layers": 1}, "DebertaV2": {},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2}, "Llama": {},
    "FNet": {}, "Bart": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
                         "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
                         "eos_token_id": 3, "decoder_start_token_id": 2},
}  # fmt: skip
"""Encoders, decoders, one that mixes all positions without a mask, and one that looks for its end tokens."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_answers_what_each_line_answers_alone(tmp_path: Path, family: str) -> None:
    name = f"{family}ForSequenceClassification"
    folder = text_model(tmp_path, name, family=family, **labels(*LABELS), **FAMILIES[family])
    runner, pipe = runner_of(folder), pipeline("text-classification", folder)
    requests = [ask(text, "text-classification", str(at), top_k=0) for at, text in enumerate(SENTENCES)]
    for batched, alone, text in zip(*together_and_alone(runner, requests), SENTENCES, strict=True):
        same(scores(batched), scores(alone))
        same(scores(alone), [(each["label"], each["score"]) for each in pipe(text, top_k=None)])


def test_padding_that_is_not_masked_is_noticed(emotions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above would fail if padding were seen; and a model that sees it gets no padded batches.

    Where layers are packed they see none, whatever the model makes of a mask: so they are unpacked here.
    """
    bundle = load(emotions)
    runner = forward_runner(bundle)
    requests = [ask(text, "text-classification", str(at), top_k=0) for at, text in enumerate(SENTENCES)]
    alone = [scores(each) for each in together_and_alone(runner, requests)[1]]
    packing.unpack(bundle.module, bundle.module.__dict__[packing.ATTRIBUTE])
    forward = bundle.module.forward

    def unmasked(input_ids: Any, token_type_ids: Any, return_dict: bool) -> Any:
        return forward(input_ids=input_ids, token_type_ids=token_type_ids, return_dict=return_dict)

    monkeypatch.setattr(bundle.module, "forward", unmasked)
    wrong = [scores(each) for each in answers(runner, requests)]
    assert any(one[0][1] != pytest.approx(other[0][1], abs=1e-4) for one, other in zip(wrong, alone, strict=True))
    right = [scores(each) for each in answers(forward_runner(bundle), requests)]
    for one, other in zip(right, alone, strict=True):
        same(one, other)


@pytest.mark.parametrize("several", [False, True])
def test_zero_shot_labels_are_those_of_the_pipeline(nli: Path, several: bool) -> None:
    runner, pipe = runner_of(nli), pipeline("zero-shot-classification", nli)
    candidates, template = ["fox", "dog and text", "café"], "the text is {}"
    best = set()
    for text in SENTENCES:
        expected = pipe(text, candidate_labels=candidates, hypothesis_template=template, multi_label=several)
        event = answer(
            runner, text, "zero-shot-classification", candidate_labels=candidates, hypothesis_template=template,
            multi_label=several,
        )  # fmt: skip
        same(scores(event), list(zip(expected["labels"], expected["scores"], strict=True)))
        best.add(expected["labels"][0])
    assert len(best) >= 2


def test_one_candidate_is_scored_by_itself(nli: Path) -> None:
    expected = pipeline("zero-shot-classification", nli)("fox", candidate_labels=["dog"])
    found = scores(answer(runner_of(nli), "fox", "zero-shot-classification", candidate_labels=["dog"]))
    same(found, [("dog", expected["scores"][0])])


def test_only_a_model_of_inference_has_zero_shot_labels(nli: Path, emotions: Path, ranker: Path) -> None:
    assert runner_of(nli).tasks == ("text-classification", "zero-shot-classification")
    assert runner_of(emotions).tasks == ("text-classification",)
    assert runner_of(ranker).tasks == ("text-classification", "rerank")


def test_documents_are_scored_as_the_model_scores_pairs(ranker: Path) -> None:
    module = transformers.AutoModelForSequenceClassification.from_pretrained(ranker)
    tokenizer = transformers.AutoTokenizer.from_pretrained(ranker)
    query, *documents = SENTENCES
    with torch.inference_mode():
        pairs = [tokenizer(query, document, return_tensors="pt") for document in documents]
        expected = [float(module(**pair).logits[0, 0]) for pair in pairs]
    event = answer(runner_of(ranker), [query, *documents], "rerank", function="none")
    assert isinstance(event.result, ScoresResult)
    assert event.result.scores == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.1
    squashed = answer(runner_of(ranker), [query, *documents], "rerank").result
    assert isinstance(squashed, ScoresResult)
    assert squashed.scores == pytest.approx(torch.tensor(expected).sigmoid().tolist(), abs=1e-5)


def test_long_documents_are_cut_and_it_is_said(ranker: Path) -> None:
    long = "the quick brown fox " * 60
    with pytest.raises(TooLarge, match="max_tokens"):
        runner_of(ranker).submit(ask(["fox", long], "rerank"))
    event = answer(runner_of(ranker), ["fox", "dog", long], "rerank", max_tokens=32)
    assert event.truncated == (False, True) and event.prompt_tokens < 32 + 12


def test_long_text_is_refused_with_numbers_or_cut(emotions: Path) -> None:
    runner, long = runner_of(emotions), "the quick brown fox " * 60
    with pytest.raises(TooLarge) as error:
        runner.submit(ask(long, "text-classification"))
    assert error.value.limit == 128 < error.value.got
    event = answer(runner, long, "text-classification", max_tokens=20)
    assert (event.truncated, event.prompt_tokens) == ((True,), 20)
    cut = transformers.AutoTokenizer.from_pretrained(emotions)(long, truncation=True, max_length=20)["input_ids"]
    same(scores(event), scores(answer(runner, cut, "text-classification")))
    huge = answer(runner, long * 1000, "text-classification", max_tokens=20)
    same(scores(huge), scores(event))


@pytest.mark.parametrize(
    ("given", "options", "name"),
    [
        ("fox", {"top_l": 1}, "top_l"), ("fox", {"top_k": -1}, "top_k"), ("fox", {"top_k": True}, "top_k"),
        ("fox", {"function": "relu"}, "function"), ("fox", {"max_tokens": 2}, "max_tokens"),
        (["a", "b", "c"], {}, "input"), ([], {}, "input"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(emotions: Path, given: Any, options: dict[str, Any], name: str) -> None:
    with pytest.raises(BadArgument) as error:
        runner_of(emotions).submit(ask(given, "text-classification", **options))
    assert error.value.name == name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs the option candidate_labels"), ({"candidate_labels": []}, "at least one"),
        ({"candidate_labels": "fox, dog"}, "a list"), ({"candidate_labels": ["a", ""]}, "at least one"),
        ({"candidate_labels": ["a"], "hypothesis_template": "no place"}, "place|goes"),
    ],
)  # fmt: skip
def test_zero_shot_needs_labels_and_a_place_for_them(nli: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        runner_of(nli).submit(ask("fox", "zero-shot-classification", **options))


def test_a_query_without_documents_is_refused(ranker: Path) -> None:
    with pytest.raises(BadArgument, match="at least one document"):
        runner_of(ranker).submit(ask("fox", "rerank"))

"""Results of inference."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from llmos.syscalls.types import (
    Answer, Choice, Embeddings, Inference, Label, Labels, Scores, Span, Spans, TensorOut, TensorsOut, Transcript
)  # fmt: skip


def test_text_and_tokens_are_those_of_the_first_choice() -> None:
    choices = [Choice(index=i, text=f"t{i}", tokens=[i], reason="stop") for i in range(2)]
    inference = Inference(id="r1", task="text-generation", model_version="v1", choices=choices)
    assert (inference.text, inference.tokens) == ("t0", [0])


def test_without_choices_they_are_empty() -> None:
    inference = Inference(id="r1", task="feature-extraction", model_version="v1")
    assert (inference.text, inference.tokens) == ("", [])


def test_the_text_of_an_answer_or_transcript_without_choices() -> None:
    for result in (Answer(text="42", score=0.5, start=0, end=2), Transcript(text="42")):
        assert Inference(id="r1", task="t", model_version="v1", result=result).text == "42"


ROW = TensorOut(dtype="float32", shape=[1, 1], data=b"\0\0\0\0")
RESULTS: list[Any] = [
    Labels(labels=[Label(label="good", score=0.9)]),
    Spans(spans=[Span(label="PER", score=1.0, start=0, end=3, text="Ada")]),
    Embeddings(tensor=ROW),
    Scores(scores=[0.5]),
    Answer(text="42", score=0.5, start=0, end=2),
    Transcript(text="hello", segments=[(0.0, 1.5, "hello")]),
    TensorsOut(named={"logits": ROW}),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_the_result_of_a_task_is_told_by_its_tag(result: Any) -> None:
    inference = Inference(id="r1", task="x", model_version="v1", result=result)
    body = msgspec.to_builtins(inference, builtin_types=(bytes,))
    again = msgspec.convert(body, Inference, builtin_types=(bytes,))
    assert type(again.result) is type(result)
    assert again == inference

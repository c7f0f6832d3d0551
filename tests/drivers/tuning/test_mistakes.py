"""Of each objective the rows that a model is most wrong about."""

from __future__ import annotations

import pytest
import torch
from llmos.drivers.tuning.metrics.by_objective import Gathered
from llmos.drivers.tuning.mistakes import cut, mistakes, texts_of

TEXTS = texts_of([[n, n, n] for n in range(9)], lambda tokens: f"text {tokens[0]}")

CASES = {
    "classification": (
        Gathered(torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.5, 0.0]]), torch.tensor([1, 1, 1]), names=("no", "yes")),
        [(0, "yes", "no"), (2, "yes", "no")],
    ),
    "token-classification": (
        Gathered(torch.eye(3), torch.tensor([0, 0, 0]), rows=torch.tensor([4, 4, 6]), names=("O", "B-X", "I-X")),
        [(4, "O", "B-X"), (6, "O", "I-X")],
    ),
    "multi-label": (
        Gathered(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]), names=("a", "b")),
        [(1, "a", "b")],
    ),
    "regression": (
        Gathered(torch.tensor([1.0, 5.0]), torch.tensor([1.5, 1.0])), [(1, "1", "5"), (0, "1.5", "1")],
    ),
    "question-answering": (
        Gathered(torch.tensor([[1, 2], [3, 3]]), torch.tensor([[1, 2], [5, 6]])),
        [(1, "tokens 5 to 6", "tokens 3 to 3")],
    ),
    "embedding": (
        Gathered(torch.tensor([1, 7, 2]), torch.empty(3)), [(1, "place 1", "place 7"), (2, "place 1", "place 2")],
    ),
    "preference": (Gathered(torch.tensor([1.0, -2.0]), torch.empty(2)), [(1, "ahead", "behind by 2")]),
}  # fmt: skip
CASES["multiple-choice"] = CASES["preference"]


@pytest.mark.parametrize("objective", CASES)
def test_the_worst_first(objective: str) -> None:
    gathered, wanted = CASES[objective]
    found = mistakes(objective, gathered, TEXTS)
    assert [(each["row"], each["wanted"], each["said"]) for each in found] == wanted
    assert [each["text"] for each in found] == [f"text {row}" for row, _, _ in wanted]


def test_no_more_than_are_shown() -> None:
    gathered = Gathered(torch.arange(1, 9), torch.empty(8))
    assert [each["row"] for each in mistakes("embedding", gathered, TEXTS, shown=2)] == [7, 6]


def test_classes_without_names_have_numbers() -> None:
    gathered = Gathered(torch.tensor([[3.0, 0.0]]), torch.tensor([1]))
    assert mistakes("classification", gathered, TEXTS)[0]["wanted"] == "1"


def test_long_texts_are_cut() -> None:
    assert cut("abc", 3) == "abc" and cut("abcd", 3) == "ab…"

"""Each objective has figures of its own, one by which it is judged, and an interval of that."""

from __future__ import annotations

import math

import pytest
import torch
from llmos.drivers.tuning.metrics.by_objective import MAIN, SMALLER_IS_BETTER, Gathered, figures, interval
from llmos.drivers.tuning.metrics.intervals import bootstrap
from llmos.drivers.tuning.words import OBJECTIVES

TAGS = ("O", "B-X", "I-X")


def chosen(numbers: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(numbers), classes).float()


CASES: dict[str, tuple[Gathered, dict[str, float]]] = {
    "causal-lm": (
        Gathered(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 9]), torch.tensor([0.0, 0.0, 1.0, 3.0])),
        {"perplexity": math.e, "token_accuracy": 0.75},
    ),
    "classification": (
        Gathered(chosen([0, 1, 1, 1], 2), torch.tensor([0, 0, 1, 1])), {"accuracy": 0.75, "roc_auc": 0.75},
    ),
    "multi-label": (
        Gathered(torch.tensor([[3.0, -1.0], [2.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])),
        {"exact_match": 0.5, "f1_micro": 0.8},
    ),
    "regression": (Gathered(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0])), {"mae": 0.5, "mse": 0.5, "r2": -1.0}),
    "token-classification": (
        Gathered(chosen([1, 1, 0], 3), torch.tensor([1, 1, 2]), rows=torch.tensor([0, 4, 4]), names=TAGS),
        {"accuracy": 2 / 3, "entity_f1": 0.5, "entity_precision": 0.5},
    ),
    "question-answering": (
        Gathered(torch.tensor([[1, 2], [5, 6]]), torch.tensor([[1, 2], [6, 7]])), {"exact_match": 0.5, "f1": 0.75},
    ),
    "embedding": (Gathered(torch.tensor([1, 4]), torch.empty(2)), {"mrr": 0.625, "recall_at_1": 0.5}),
    "preference": (Gathered(torch.tensor([2.0, -1.0]), torch.empty(2)), {"accuracy": 0.5, "margin": 0.5}),
}  # fmt: skip
CASES |= dict.fromkeys(("masked-lm", "seq2seq"), CASES["causal-lm"])
CASES["multiple-choice"] = CASES["preference"]


def test_every_objective_has_figures() -> None:
    assert set(MAIN) == set(CASES) == set(OBJECTIVES)
    assert {MAIN[name] for name in ("causal-lm", "regression")} <= SMALLER_IS_BETTER


@pytest.mark.parametrize("objective", CASES)
def test_figures_of_each_objective(objective: str) -> None:
    gathered, wanted = CASES[objective]
    found = figures(objective, gathered)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert MAIN[objective] in found and all(isinstance(value, float) for value in found.values())
    around = interval(objective, gathered, samples=20)
    assert around.value == pytest.approx(found[MAIN[objective]]) and around.low <= around.value <= around.high
    assert around == interval(objective, gathered, samples=20)


@pytest.mark.parametrize("objective", CASES)
def test_nothing_gathered_has_no_figures(objective: str) -> None:
    nothing = Gathered(torch.empty(0), torch.empty(0))
    assert figures(objective, nothing) == {}
    with pytest.raises(ValueError, match="nothing was gathered"):
        interval(objective, nothing)


def test_the_tokens_of_a_row_are_drawn_together() -> None:
    losses, rows = torch.tensor([1.0, 1.0, 1.0, 5.0, 5.0]), torch.tensor([0, 0, 0, 1, 1])
    tokens = torch.zeros(5, dtype=torch.int64)
    whole = interval("causal-lm", Gathered(tokens, tokens, losses, rows))
    wanted = bootstrap(losses, statistic=lambda drawn: math.exp(drawn.double().mean()), rows=rows, samples=200)
    assert (whole.low, whole.high) == (wanted.low, wanted.high) == pytest.approx((math.e, math.e**5))


def test_a_row_that_is_drawn_twice_is_two_sentences() -> None:
    """Else an entity at the end of one would go on in the next, and a wrong tag spoil a right one."""
    gathered = Gathered(chosen([2, 2], 3), torch.tensor([2, 2]), rows=torch.tensor([0, 0]), names=TAGS)
    assert figures("token-classification", gathered)["entity_recall"] == 1.0
    half = Gathered(chosen([2, 2, 0], 3), torch.tensor([2, 2, 2]), rows=torch.tensor([0, 0, 1]), names=TAGS)
    around = interval("token-classification", half, samples=300)
    # of two rows drawn: both right 1, one right 2/3 (one said, two wanted), none right 0
    seen = {1.0, 2 / 3, 0.0}
    assert around.value == pytest.approx(2 / 3) and {around.low, around.high} <= seen

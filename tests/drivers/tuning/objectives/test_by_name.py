"""Each objective that a recipe can name has its class, with what the recipe says of it."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models

from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.base import Base
from llmos.drivers.tuning.objectives.answers import Answers
from llmos.drivers.tuning.objectives.by_name import objective_of
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.objectives.choices import Choices
from llmos.drivers.tuning.objectives.classes import Masked, Rows, Tokens
from llmos.drivers.tuning.objectives.embedding import Embedding, Triplet
from llmos.drivers.tuning.objectives.preference import Preference
from llmos.drivers.tuning.objectives.seq2seq import Seq2seq
from llmos.drivers.tuning.objectives.values import MultiLabel, Regression
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.words import OBJECTIVES
from llmos.syscalls.errors import BadModel

WORDS = tiny_models.word_piece()
BASE = Base("tiny", kinds.MASKED, WORDS, 64)
MADE: list[tuple[str, dict[str, Any], object]] = [
    ("causal-lm", {"label_smoothing": 0.1}, Causal(smoothing=0.1)),
    (
        "masked-lm", {"masked_share": 0.3},
        Masked(mask=WORDS.mask_token_id, vocabulary=len(WORDS), share=0.3),
    ),
    ("seq2seq", {"label_smoothing": 0.1}, Seq2seq(smoothing=0.1)),
    ("classification", {"label_smoothing": 0.1}, Rows(smoothing=0.1)),
    ("multi-label", {}, MultiLabel()),
    ("regression", {}, Regression()),
    ("token-classification", {}, Tokens()),
    ("question-answering", {}, Answers()),
    ("embedding", {"temperature": 0.2}, Embedding(temperature=0.2)),
    ("embedding", {"contrast": "triplet", "margin": 0.2}, Triplet(margin=0.2)),
    ("preference", {"beta": 0.3}, Preference(beta=0.3)),
    ("multiple-choice", {}, Choices()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "wanted"), MADE, ids=[type(made).__name__ for _, _, made in MADE])
def test_its_class_with_what_the_recipe_says(name: str, options: dict[str, Any], wanted: object) -> None:
    made = objective_of(Recipe.of({"method": "lora", "objective": name, "options": options}), BASE)
    assert type(made) is type(wanted) and made == wanted


@pytest.mark.parametrize("name", ["classification", "token-classification"])
def test_classes_count_as_they_are_weighed(name: str) -> None:
    made = objective_of(Recipe.of({"method": "lora", "objective": name}), BASE, (0.5, 2.0))
    assert isinstance(made, Rows) and made.class_weights is not None and made.class_weights.tolist() == [0.5, 2.0]


def test_none_is_left_out() -> None:
    assert {name for name, _, _ in MADE} == set(OBJECTIVES)


def test_what_is_hidden_needs_a_mask() -> None:
    base = Base("tiny", kinds.MASKED, tiny_models.byte_level(), 64)
    with pytest.raises(BadModel, match="no mask token"):
        objective_of(Recipe.of({"method": "lora", "objective": "masked-lm"}), base)

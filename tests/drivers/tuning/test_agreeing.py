"""What of a recipe does not go together is refused with the name of what is to change."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.agreeing import agree
from llmos.drivers.tuning.recipe import Recipe
from llmos.syscalls.errors import BadArgument

FILES = {"files": ["a"]}


@pytest.mark.parametrize(
    ("fields", "name", "want"),
    [
        ({"options": {"early_stopping": 2}}, "early_stopping", "an eval_fraction above 0"),
        ({"method": "full", "options": {"result": "adapter"}}, "result", "model"),
        ({"options": {"class_weights": "balanced"}}, "class_weights", "classification, token-classification"),
        ({"options": {"group": "town"}}, "group", "classification"),
        ({"options": {"unlabelled": FILES}}, "unlabelled", "classification, token-classification"),
        ({"objective": "embedding", "options": {"teacher": {"model": "m"}}}, "teacher",
         "causal-lm, masked-lm, seq2seq, classification, token-classification"),
        ({"objective": "embedding", "options": {"r_drop": 1}}, "r_drop",
         "causal-lm, masked-lm, seq2seq, classification, token-classification"),
        ({"options": {"contrast": "triplet"}}, "contrast", "embedding"),
        ({"objective": "regression", "options": {"label_smoothing": 0.1}}, "label_smoothing",
         "causal-lm, masked-lm, seq2seq, classification"),
        ({"method": "ia3", "options": {"orthogonal": {"to": ["a"]}}}, "orthogonal", "lora, rslora, dora, qlora"),
        ({"options": {"tasks": {"a": FILES}, "group": "town"}}, "group", "one of them"),
    ],
)  # fmt: skip
def test_it_is_refused(fields: dict[str, Any], name: str, want: str) -> None:
    with pytest.raises(BadArgument) as caught:
        Recipe.of({"method": "lora", **fields})
    assert (caught.value.name, caught.value.want) == (name, want)


def test_what_goes_together_is_let_alone() -> None:
    options = {"class_weights": "balanced", "group": "town", "label_smoothing": 0.1, "early_stopping": 1}
    agree(Recipe.of({"method": "full", "objective": "classification", "eval_fraction": 0.1, "options": options}))

"""Models that are no causal language models: their rung, the reason, and what serves them."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_kinds import load, ops, text_model

from llmos.drivers.engine import kinds, others
from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.pace import Pace
from llmos.drivers.engine.shared import SharedModule


def test_what_writes_is_on_another_rung_than_what_does_not() -> None:
    rung, reasons = others.rung(kinds.SEQUENCE)
    assert rung == "F" and "sequence classifier" in reasons[0]
    rung, reasons = others.rung(kinds.SEQ2SEQ)
    assert rung == "G" and "encoder-decoder" in reasons[0]


def test_other_names_are_those_of_tasks() -> None:
    assert others.ALIASES["ner"] == "token-classification"
    assert others.EMBEDDING in others.ALIASES.values()


def test_an_encoder_is_served_in_one_pass(tmp_path: Path) -> None:
    bundle = load(text_model(tmp_path, "BertModel"))
    with torch.inference_mode():
        (runner,) = others.runners(bundle, SharedModule(bundle.module), Vocabulary(bundle.tokenizer), ops(), Pace(1))
    assert (runner.rung, list(runner.tasks)) == ("F", ["feature-extraction"])

"""A base that cannot learn an objective is refused before a row is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_kinds
import transformers
from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.base import HEADS, Base
from llmos.drivers.tuning.words import OBJECTIVES
from llmos.syscalls.errors import BadModel
from tiny_models import byte_level
from training_data import base


def test_every_objective_has_kinds_that_can_learn_it() -> None:
    assert set(HEADS) == set(OBJECTIVES)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_kind_decides(objective: str) -> None:
    for kind in (kinds.CAUSAL, kinds.MASKED, kinds.SEQUENCE, kinds.TOKEN, kinds.QUESTION, kinds.SEQ2SEQ, kinds.ENCODER):
        made = base(kind=kind)
        if kind in HEADS[objective]:
            made.check(objective)
        else:
            with pytest.raises(BadModel, match=f"{objective} needs a .*, this is a {kind.name}; objectives for it: "):
                made.check(objective)


def test_regression_needs_a_head_of_one_output() -> None:
    base(kind=kinds.SEQUENCE, labels=("LABEL_0",)).check("regression")
    with pytest.raises(BadModel, match=r"one output, this one has 2.*num_labels 1"):
        base(kind=kinds.SEQUENCE, labels=("LABEL_0", "LABEL_1")).check("regression")


def test_a_tokenizer_has_to_say_where_tokens_begin() -> None:
    slow = transformers.ByT5Tokenizer()
    for tokenizer in (slow, None):
        with pytest.raises(BadModel, match="where in a text its tokens begin"):
            Base("tiny", kinds.CAUSAL, tokenizer, 64).check("causal-lm")


def test_messages_need_a_chat_template() -> None:
    base(byte_level(chat=True)).check_chat()
    with pytest.raises(BadModel, match=r"no chat template.*prompt and completion"):
        base().check_chat()


@pytest.mark.parametrize(
    ("names", "named"), [((), False), (("LABEL_0", "LABEL_1"), False), (("no", "yes"), True), (("LABEL_1",), True)]
)
def test_the_librarys_own_names_are_none(names: tuple[str, ...], named: bool) -> None:
    assert base(labels=names).named is named


def test_what_a_loaded_model_says(tmp_path: Path) -> None:
    config = transformers.BertConfig(**tiny_kinds.SIZE, id2label={0: "no", 1: "yes", 2: "maybe"})
    module = tiny_kinds.build(config, "BertForSequenceClassification")
    bundle = tiny_kinds.load(tiny_kinds.save(tmp_path / "m", module, tiny_kinds.pair_tokenizer()))
    made = Base.of(bundle, "mine")
    assert (made.name, made.kind, made.labels) == ("mine", kinds.SEQUENCE, ("no", "yes", "maybe"))
    assert made.context == bundle.about.context
    assert made.padding == bundle.tokenizer.pad_token_id
    assert Base.of(bundle).name == "BertForSequenceClassification"

"""Heads of classes: they move beside any adapter, as copies of their own, and plain PEFT loads them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_kinds
import tiny_models
import torch
import transformers
from slow_cases import slow_but
from torch import nn
from torch.nn import functional

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import kinds
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.models import Resident
from llmos.drivers.ops.table import OpTable
from llmos.drivers.tuning.methods import adapt, export
from llmos.drivers.tuning.owning import OwnLinear, own_heads
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.resident import training_view

IDS = torch.tensor([tiny_models.PROMPT[:12]]) % 90 + 5
HEADS = [
    ("Bert", "BertForSequenceClassification", {"num_labels": 3}),
    ("Roberta", "RobertaForSequenceClassification", {"num_labels": 3}),
    ("Bert", "BertForTokenClassification", {"num_labels": 4}),
    ("Bert", "BertForQuestionAnswering", {}),
]


def served(ops: OpTable, folder: Path, family: str, name: str, dtype: str, **fields: Any) -> Resident:
    tiny_kinds.text_model(folder, name, family=family, **fields)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(folder), LoadSettings(dtype=dtype), tiny_models.silent)
    return engine.base("m")


def scores(module: Any) -> torch.Tensor:
    answer = module(input_ids=IDS, attention_mask=torch.ones_like(IDS))
    made: torch.Tensor = answer.logits if "logits" in answer else answer.start_logits
    return made.flatten(0, -2).float() if made.ndim > 1 and "logits" in answer else made.float()


@pytest.mark.parametrize("method", ["lora", "ia3"])
@pytest.mark.parametrize(
    ("family", "name", "fields", "dtype"),
    slow_but(
        [(*HEADS[1], "float32"), (*HEADS[2], "bfloat16")],
        [(*each, dtype) for each in HEADS for dtype in ("float32", "bfloat16")],
    ),
)
def test_it_learns_with_its_head_and_plain_peft_loads_both(
    ops: OpTable, tmp_path: Path, family: str, name: str, fields: Any, dtype: str, method: str
) -> None:
    resident = served(ops, tmp_path / "base", family, name, dtype, **fields)
    before = {key: value.clone() for key, value in resident.bundle.module.state_dict().items()}
    recipe = Recipe.of({"method": method, "objective": "classification"})
    adapted = adapt(training_view(resident.bundle), resident.bundle.about.kind, recipe, 10)
    moving = {key: value for key, value in adapted.named_parameters() if value.requires_grad}
    heads = {key for key in moving if "modules_to_save" in key}
    assert heads and {value.dtype for value in moving.values()} == {torch.float32}
    first = {key: moving[key].detach().clone() for key in moving}
    optimizer, losses = torch.optim.AdamW(moving.values(), lr=1e-2), []
    for _ in range(6):
        made = scores(adapted)
        loss = functional.cross_entropy(made, torch.zeros(len(made), dtype=torch.int64))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not any(torch.equal(first[key], moving[key]) for key in heads), "the head has moved"
    after = resident.bundle.module.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items()), "what serves has not"
    out = tmp_path / "out"
    out.mkdir()
    export(adapted.eval(), out)
    plain = getattr(transformers, name).from_pretrained(tmp_path / "base", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(plain, out).eval()
    with torch.no_grad():
        mine, theirs = scores(adapted), scores(loaded)
    assert float((mine - theirs).abs().max() / theirs.abs().max()) < (1e-5 if dtype == "float32" else 5e-2)


def test_its_weights_are_a_copy() -> None:
    layer = nn.Linear(3, 2)
    own = OwnLinear.of(layer)
    assert torch.equal(own.weight, layer.weight) and own.weight.data_ptr() != layer.weight.data_ptr()
    x = torch.randn(4, 3)
    assert torch.equal(own(x), layer(x)) and own(x.bfloat16()).dtype == torch.float32
    bare = OwnLinear.of(nn.Linear(3, 2, bias=False).bfloat16())
    assert bare.bias is None and bare.weight.dtype == torch.float32
    with torch.device("meta"):
        assert OwnLinear.of(nn.Linear(3, 2)).weight.is_meta


def test_a_model_that_writes_keeps_its_head() -> None:
    module = nn.Module()
    module.score = nn.Linear(3, 2)
    own_heads(module, kinds.CAUSAL)
    assert type(module.score) is nn.Linear
    own_heads(module, kinds.SEQUENCE)
    assert type(module.score) is OwnLinear

"""Bytes planned from the configuration are the bytes that are then held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from tiny_kinds import LAYERS, SIZE, build
from tiny_models import ARCHITECTURES, CONTEXT, config_of, random_module

from llmos.drivers.engine import kinds, plan
from llmos.drivers.engine.loader import Description
from llmos.drivers.engine.memory import live_bytes, tensors_in, tensors_of

TOKENS = 12
"""Below the sliding windows of the tiny models: beyond them a layer keeps a view of more than it needs."""


def described(name: str) -> Description:
    return Description(config_of(name), name, kinds.CAUSAL, torch.float32, CONTEXT)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_plan_is_what_a_model_and_its_cache_take(name: str) -> None:
    planned = plan.footprint(described(name))
    module = random_module(config_of(name))
    assert planned.weights == live_bytes(tensors_of(module))
    assert planned.parameters == module.num_parameters()
    with torch.inference_mode():
        answer = module(input_ids=torch.zeros(1, TOKENS, dtype=torch.long), use_cache=True)
    held = [answer[key] for key in plan.STATE_NAMES if key in answer]
    slack = 8 * len(planned.cache.layers)  # a sliding layer keeps its window as a tensor
    assert 0 <= live_bytes(tensors_in(held)) - planned.cache.bytes(TOKENS) <= slack
    assert planned.workspace > 0


def test_a_step_of_more_tokens_needs_more_room() -> None:
    about = replace(described("llama"), context=4096)
    few, many = (plan.footprint(about, prefill=tokens).workspace for tokens in (256, 2048))
    assert few < many <= 8 * few
    assert plan.footprint(described("llama"), prefill=2048).workspace == plan.footprint(described("llama")).workspace, (
        "no step has more tokens than the context"
    )


def test_a_window_stops_growing() -> None:
    shape = plan.CacheShape(100, ((10, None), (10, 16)))
    assert [shape.bytes(tokens) for tokens in (0, 8, 16, 100)] == [100, 260, 420, 100 + 1000 + 160]


def test_a_model_that_cannot_run_without_weights_is_planned_from_its_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    about = described("llama")
    exact = plan.footprint(about).cache

    class Stubborn(torch.nn.Module):
        def forward(self, **given: object) -> None:
            raise NotImplementedError("no meta kernel")

    assert plan.cache_shape(Stubborn(), about).bytes(CONTEXT) == exact.bytes(CONTEXT)


def test_rows_put_the_plan_beside_what_is_held() -> None:
    planned = plan.Footprint(1000, plan.CacheShape(0, ((10, None),)), 50, 250)
    rows = planned.rows("m", 100, weights=900, kv=30)
    assert [(row.what, row.owner, row.predicted, row.allocator) for row in rows] == [
        ("weights", "m", 1000, 900), ("kv", "m", 1000, 30), ("workspace", "m", 50, 0),
    ]  # fmt: skip


SEEN: dict[str, Any] = {**LAYERS, "image_size": 16, "patch_size": 4}
OTHERS: dict[str, tuple[Any, bool]] = {
    "BertForQuestionAnswering": (transformers.BertConfig(**SIZE), False),
    "ViTForImageClassification": (transformers.ViTConfig(**SEEN), False),
    "ResNetModel": (transformers.ResNetConfig(hidden_sizes=[16, 32], depths=[1, 1], embedding_size=16), False),
    "T5ForConditionalGeneration": (transformers.T5Config(**SIZE, d_model=32, d_kv=16, d_ff=32, num_heads=2), True),
    "WhisperForConditionalGeneration": (transformers.WhisperConfig(vocab_size=320, d_model=36, pad_token_id=0), True),
    "PatchTSTForPrediction": (transformers.PatchTSTConfig(d_model=32, context_length=32, num_hidden_layers=1), False),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_models_of_other_kinds_are_planned(name: str) -> None:
    config, writes = OTHERS[name]
    config.architectures = [name]
    kind, _ = kinds.kind_of(config, ("preprocessor_config.json",))
    assert kind is not None
    planned = plan.footprint(Description(config, name, kind, torch.float32, 64))
    assert planned.weights == live_bytes(tensors_of(build(config, name)))
    assert (planned.cache.bytes(64) > 0) == writes and planned.workspace > 0
    assert planned.cache.bytes(10**6) == planned.cache.bytes(plan.PLANNED_TOKENS)

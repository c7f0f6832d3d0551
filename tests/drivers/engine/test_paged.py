"""A step plan through a model: packed rows give the logits that each row has alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from llmos.drivers.engine import attention, paged
from llmos.drivers.engine.attention import Refused
from llmos.drivers.engine.paged import PagedModel
from llmos.drivers.engine.pages import PagePool
from llmos.drivers.engine.reach import Reach
from llmos.drivers.engine.steps import PAGE_TOKENS, Row, RowStep, StepPlan
from llmos.drivers.ops.table import OpTable

TOKENS = [int(token) for token in torch.randint(100, (40,), generator=torch.Generator().manual_seed(0))]


@pytest.fixture(scope="module")
def llama_module() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def plain(module: Any, tokens: list[int]) -> torch.Tensor:
    module.set_attn_implementation("sdpa")
    with torch.inference_mode():
        logits: torch.Tensor = module(torch.tensor([tokens]), use_cache=False).logits[0]
    return logits


@pytest.fixture
def model(llama_module: Any, ops: OpTable) -> Any:
    llama_module.set_attn_implementation(attention.NAME)
    layers = paged.layers_of(llama_module, 100)
    made = PagedModel(llama_module, layers, PagePool(layers.shapes, 12, torch.float32), ops)
    yield made
    made.release()


def test_rows_of_a_step_do_not_see_each_other(llama_module: Any, model: PagedModel) -> None:
    one, two = Row("a", TOKENS, pages=[5, 0, 9]), Row("b", TOKENS[::-1], pages=[1, 2, 3])
    model.run(StepPlan([RowStep(one, 0, 20, 0)]))
    mixed = model.run(StepPlan([RowStep(two, 0, 33, 2), RowStep(one, 20, 20, 20)]))
    torch.testing.assert_close(mixed[2:], plain(llama_module, TOKENS)[20:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed[:2], plain(llama_module, TOKENS[::-1])[31:33], atol=1e-5, rtol=1e-4)


def test_drafts_follow_the_tokens(llama_module: Any, model: PagedModel) -> None:
    row = Row("a", TOKENS[:21], pages=[5, 0], drafts=TOKENS[21:24])
    model.run(StepPlan([RowStep(row, 0, 20, 0)]))
    logits = model.run(StepPlan([RowStep(row, 20, 4, 4, drafts=3)]))
    torch.testing.assert_close(logits, plain(llama_module, TOKENS[:24])[20:], atol=1e-5, rtol=1e-4)


def test_copies_of_a_plan_come_before_its_rows(llama_module: Any, model: PagedModel) -> None:
    one = Row("a", TOKENS, pages=[4, 5, 6])
    model.run(StepPlan([RowStep(one, 0, 20, 0)]))
    other = Row("b", TOKENS, pages=[4, 7, 8])
    logits = model.run(StepPlan([RowStep(other, 20, 20, 20)], copies=[(5, 7)]))
    torch.testing.assert_close(logits, plain(llama_module, TOKENS)[20:], atol=1e-5, rtol=1e-4)
    assert 20 % PAGE_TOKENS  # the copied page is a partial one


def test_without_wanted_logits_there_are_none(model: PagedModel) -> None:
    assert model.run(StepPlan([RowStep(Row("a", TOKENS, pages=[0]), 0, 5, 0)])).shape[0] == 0


def test_a_model_without_such_layers_is_refused() -> None:
    config = transformers.BloomConfig(hidden_size=32, n_layer=1, n_head=2, vocab_size=100)
    with pytest.raises(Refused, match="interface"):
        paged.layers_of(transformers.AutoModelForCausalLM.from_config(config), 100)


SMALL: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
COUNTING: dict[str, dict[str, Any]] = {
    "bart": {
        "vocab_size": 100, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64,
        "max_position_embeddings": 64, "init_std": 0.5,
    },
    "llama4_text": SMALL | {
        "intermediate_size_mlp": 64, "attention_chunk_size": 16, "floor_scale": 4, "attn_scale": 2.0,
        "no_rope_layers": [1, 0], "num_local_experts": 2, "initializer_range": 0.3,
    },
    "qwen2_moe": SMALL | {
        "sliding_window": 9, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"],
        "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4, "initializer_range": 0.3,
    },
}  # fmt: skip
"""Types whose packed rows are right only if the length, or the reach of a layer, is told or measured."""


def of_kind(kind: str) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **COUNTING[kind])
    return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def mixed(module: Any, layers: paged.Layers, ops: OpTable) -> torch.Tensor:
    """The logits of the last 20 of 40 tokens, in one step with another row."""
    model = PagedModel(module, layers, PagePool(layers.shapes, 12, torch.float32), ops)
    one, two = Row("a", TOKENS, pages=[5, 0, 9]), Row("b", TOKENS[::-1], pages=[1, 2, 3])
    model.run(StepPlan([RowStep(one, 0, 20, 0)]))
    logits = model.run(StepPlan([RowStep(two, 0, 33, 0), RowStep(one, 20, 20, 20)]))
    model.release()
    return logits


@pytest.mark.parametrize("kind", COUNTING)
def test_what_only_lengths_and_masks_say_is_told_and_measured(kind: str, ops: OpTable) -> None:
    module = of_kind(kind)
    expected = plain(module, TOKENS)[20:]
    module.set_attn_implementation(attention.NAME)
    torch.testing.assert_close(mixed(module, paged.layers_of(module, 100), ops), expected, atol=1e-4, rtol=1e-3)


def untold(layers: paged.Layers) -> paged.Layers:
    return replace(layers, manner=replace(layers.manner, counts=False))


def unmeasured(layers: paged.Layers) -> paged.Layers:
    return replace(layers, found=replace(layers.found, measured=[False] * len(layers.modules)))


def wider(layers: paged.Layers) -> paged.Layers:
    meanings = [replace(meaning, reach=Reach(10 if meaning.reach.window else 0)) for meaning in layers.meanings]
    return replace(layers, found=replace(layers.found, meanings=meanings))


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("bart", untold), ("llama4_text", untold), ("llama4_text", unmeasured), ("qwen2_moe", unmeasured),
     ("qwen2_moe", wider)],
)  # fmt: skip
def test_without_that_they_would_answer_wrongly(kind: str, fault: Any, ops: OpTable) -> None:
    module = of_kind(kind)
    expected = plain(module, TOKENS)[20:]
    module.set_attn_implementation(attention.NAME)
    logits = mixed(module, fault(paged.layers_of(module, 100)), ops)
    assert (logits - expected).abs().max() > 1e-2 * (expected.max() - expected.min())


BOUNDS = {torch.int8: 0.02, torch.float8_e4m3fn: 0.06}
"""How far logits may be off, as a share of their range, where keys and values are numbers of 8 bits."""


@pytest.mark.parametrize("dtype", BOUNDS)
def test_pages_of_8_bits_change_logits_by_a_little(llama_module: Any, ops: OpTable, dtype: torch.dtype) -> None:
    llama_module.set_attn_implementation(attention.NAME)
    layers = paged.layers_of(llama_module, 100)
    model = PagedModel(llama_module, layers, PagePool(layers.shapes, 12, dtype), ops)
    row = Row("a", TOKENS, pages=[5, 0, 9])
    try:
        first = model.run(StepPlan([RowStep(row, 0, 20, 20)]))
        rest = [model.run(StepPlan([RowStep(row, at, 1, 1)])) for at in range(20, 40)]
    finally:
        model.release()
    exact = plain(llama_module, TOKENS)
    off = (torch.cat([first, *rest]) - exact).abs().max() / (exact.max() - exact.min())
    assert 1e-5 < float(off) < BOUNDS[dtype]


def test_ops_are_asked_for_pages_of_8_bits(llama_module: Any, ops: OpTable) -> None:
    asked: list[Any] = []
    table = OpTable()
    for op in ("write_kv", "paged_attention"):
        table.register(op, "noted", ops.named(op, "torch").call, lambda spec: (asked.append(spec) is None, ""))
    llama_module.set_attn_implementation(attention.NAME)
    layers = paged.layers_of(llama_module, 100)
    PagedModel(llama_module, layers, PagePool(layers.shapes, 2, torch.float32), table).release()
    assert asked and not any("kv_dtype" in spec for spec in asked)
    asked.clear()
    PagedModel(llama_module, layers, PagePool(layers.shapes, 2, torch.float8_e4m3fn), table).release()
    assert {spec["kv_dtype"] for spec in asked} == {"float8_e4m3fn"}

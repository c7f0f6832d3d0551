"""A step plan through a model: packed rows give the logits that each row has alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from llmos.drivers.engine import attention, paged
from llmos.drivers.engine.attention import Refused
from llmos.drivers.engine.paged import PagedModel
from llmos.drivers.engine.pages import PagePool
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
    layers = paged.layers_of(llama_module)
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
    with pytest.raises(Refused, match="position_ids"):
        paged.layers_of(transformers.AutoModelForCausalLM.from_config(config))

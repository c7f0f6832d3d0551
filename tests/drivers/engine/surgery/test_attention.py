"""Fused attention answers as the library's own, on pages; what it was not made for it hands over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from llmos.drivers.engine import attention, paged
from llmos.drivers.engine.pages import PagePool
from llmos.drivers.engine.paged import PagedModel
from llmos.drivers.engine.steps import Row, RowStep, StepPlan
from llmos.drivers.engine.surgery.attention import FusedAttention, fuse_attention
from llmos.drivers.engine.surgery.operate import operate
from llmos.drivers.ops.table import OpTable

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TOKENS = [int(token) for token in torch.randint(100, (30,), generator=torch.Generator().manual_seed(0))]


def build(kind: str, dtype: torch.dtype, ops: OpTable, **changed: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES | changed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
    operate(model, ops)
    model.set_attn_implementation(attention.NAME)
    return model


def on_pages(model: Any, ops: OpTable) -> tuple[paged.Layers, PagedModel]:
    layers = paged.layers_of(model, 100)
    return layers, PagedModel(model, layers, PagePool(layers.shapes, 4, model.dtype), ops)


def run(model: PagedModel, cut: int = 17) -> torch.Tensor:
    """Logits of a row of tokens that goes in two parts, beside another row."""
    one, two = Row("a", TOKENS, pages=[2, 0]), Row("b", TOKENS[5:], pages=[3, 1])
    first = model.run(StepPlan([RowStep(one, 0, cut, cut)]))
    rest = model.run(StepPlan([RowStep(two, 0, 9, 1), RowStep(one, cut, 30 - cut, 30 - cut)]))
    return torch.cat([first, rest])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gemma2"])
def test_fused_layers_answer_as_the_librarys(ops: OpTable, kind: str, dtype: torch.dtype) -> None:
    changed = {"sliding_window": 6} if kind in ("mistral", "gemma2") else {}
    model = build(kind, dtype, ops, **changed)
    layers, pages = on_pages(model, ops)
    expected = run(pages)
    assert fuse_attention(model, layers.modules, layers.meanings, ops, lambda: run(pages)) == 2
    assert sum(isinstance(module, FusedAttention) for module in model.modules()) == 2
    torch.testing.assert_close(run(pages), expected)


def test_layers_that_turn_their_heads_in_another_way_stay(ops: OpTable) -> None:
    model = build("cohere", torch.float32, ops)
    layers, pages = on_pages(model, ops)
    expected = run(pages)
    assert fuse_attention(model, layers.modules, layers.meanings, ops, lambda: run(pages)) == 0
    assert torch.equal(run(pages), expected)


def test_away_from_pages_the_original_answers(ops: OpTable) -> None:
    model = build("llama", torch.float32, ops)
    plain = build("llama", torch.float32, ops)
    plain.set_attn_implementation("sdpa")
    layers, pages = on_pages(model, ops)
    fuse_attention(model, layers.modules, layers.meanings, ops, lambda: run(pages))
    pages.release()
    model.set_attn_implementation("sdpa")
    ids = torch.tensor([TOKENS, TOKENS[::-1]])
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, plain(ids).logits)
    assert len(paged.layers_of(_paged(model), 100).modules) == 2


def _paged(model: Any) -> Any:
    model.set_attn_implementation(attention.NAME)
    return model

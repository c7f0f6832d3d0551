"""The whole operation: the same logits, the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from llmos.drivers.engine.memory import live_bytes, tensors_of
from llmos.drivers.engine.surgery.operate import operate
from llmos.drivers.engine.surgery.merged import PackedEmbedding
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
REFERENCE = OpTable()
register_reference(REFERENCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "norms"), [("llama", 5), ("gemma2", 9), ("qwen3", 9), ("qwen2", 5)])
def test_a_model_answers_as_before(ops: OpTable, kind: str, norms: int, dtype: torch.dtype) -> None:
    model = build(kind, dtype)
    ids, before = torch.randint(100, (1, 30)), live_bytes(tensors_of(model))
    make = ops.choose("linear", {"device": "cpu", "dtype": str(dtype)[6:]}).implementation.call
    quick = not model.config.tie_word_embeddings or make.quick_rows
    packed = 5 if quick else 4
    with torch.inference_mode():
        expected = model(ids).logits
        report = operate(model, ops)
        close = {"rtol": 0.05, "atol": 0.02} if dtype is torch.bfloat16 else {}
        torch.testing.assert_close(model(ids).logits, expected, **close)
    assert (report.merged, report.packed, report.norms, report.units) == (4, packed, norms, 2)
    assert live_bytes(tensors_of(model)) <= before * 1.4  # padding of tiny layers


def test_with_the_reference_ops_not_a_bit_changes() -> None:
    model = build("llama", torch.bfloat16)
    ids = torch.randint(100, (1, 30))
    with torch.inference_mode():
        expected = model(ids).logits
        operate(model, reference_only())
        assert torch.equal(model(ids).logits, expected)


def reference_only(*names: str) -> OpTable:
    plain = OpTable()
    for op in ("linear", "rms_norm", "layer_norm", "silu_mul", "gelu_tanh_mul", "gelu_mul", *names):
        plain.register(op, "torch", REFERENCE.named(op, "torch").call, lambda spec: (True, ""))
    return plain


@pytest.mark.parametrize("kind", ["gemma2", "qwen2"])
def test_embeddings_that_are_tied_share_the_packed_weights(kind: str) -> None:
    model = build(kind, torch.bfloat16, tie_word_embeddings=True)
    before, embedding = live_bytes(tensors_of(model)), model.get_input_embeddings()
    ids = torch.randint(100, (2, 9))
    expected, table = embedding(ids), embedding.weight.clone()
    operate(model, reference_only())
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, PackedEmbedding) and embedding.packed is model.lm_head.packed
    assert torch.equal(embedding(ids), expected) and torch.equal(embedding.weight, table)
    assert live_bytes(tensors_of(model)) <= before + 16


class Odd(nn.Embedding):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) + 1


def test_embeddings_that_do_more_than_that_keep_their_weights_and_their_output_layer() -> None:
    model = build("qwen2", torch.float32, tie_word_embeddings=True)
    model.get_input_embeddings().__class__ = Odd
    operate(model, reference_only())
    assert type(model.lm_head) is nn.Linear and isinstance(model.get_input_embeddings(), Odd)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def build(kind: str, dtype: torch.dtype, **changed: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES | changed)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)

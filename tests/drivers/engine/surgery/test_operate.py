"""The whole operation: the same logits, the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from llmos.drivers.engine.memory import live_bytes, tensors_of
from llmos.drivers.engine.surgery.operate import operate
from llmos.drivers.ops.table import OpTable

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "norms"), [("llama", 5), ("gemma2", 9), ("qwen3", 9), ("qwen2", 5)])
def test_a_model_answers_as_before(ops: OpTable, kind: str, norms: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
    ids, before = torch.randint(100, (1, 30)), live_bytes(tensors_of(model))
    with torch.inference_mode():
        expected = model(ids).logits
        report = operate(model, ops)
        torch.testing.assert_close(model(ids).logits, expected)
    assert (report.merged, report.norms, report.units) == (4, norms, 2)
    assert live_bytes(tensors_of(model)) == before

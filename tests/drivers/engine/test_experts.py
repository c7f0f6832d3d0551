"""Experts of the library's models answer through the op as they do by themselves; others stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from llmos.drivers.engine.experts import ATTRIBUTE, EAGER, NAME, Fitted, fit, fit_experts
from llmos.drivers.engine.surgery.operate import operate
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.reference_experts import Gate, experts
from llmos.drivers.ops.table import OpTable

SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 16, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "num_experts_per_tok": 2,
}  # fmt: skip
GPT_OSS = Gate("silu", interleaved=True, alpha=1.702, limit=7.0, shift=1.0)
MODELS: dict[str, tuple[Callable[[], Any], Gate]] = {
    "mixtral": (lambda: transformers.MixtralConfig(**SMALL, intermediate_size=48, num_local_experts=4), Gate()),
    "qwen3 moe": (
        lambda: transformers.Qwen3MoeConfig(**SMALL, moe_intermediate_size=24, num_experts=6, norm_topk_prob=True),
        Gate(),
    ),
    "olmoe": (lambda: transformers.OlmoeConfig(**SMALL, intermediate_size=24, num_experts=6), Gate()),
    "gelu": (
        lambda: transformers.MixtralConfig(
            **SMALL, intermediate_size=48, num_local_experts=4, hidden_act="gelu_pytorch_tanh"
        ),
        Gate("gelu_tanh"),
    ),
    "gpt-oss": (
        lambda: transformers.GptOssConfig(
            **SMALL, intermediate_size=48, num_local_experts=4, layer_types=["full_attention"] * 2
        ),
        GPT_OSS,
    ),
}
IDS = torch.arange(3, 17)[None]


class Counted:
    """The reference, counted."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *given: Any) -> Tensor:
        self.calls += 1
        return experts(*given)


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def table(counted: Counted) -> OpTable:
    """As where another implementation than the reference serves experts."""
    made = OpTable()
    register_reference(made)
    made.register("experts", "other", counted, lambda _: (True, ""))
    return made


def model(name: str) -> Any:
    """With numbers that make biases and limits matter."""
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(MODELS[name][0]()).eval().requires_grad_(False)
    for key, parameter in made.named_parameters():
        if "experts" in key:
            parameter.normal_(std=0.4)
    return made


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        answer: Tensor = model(input_ids=IDS).logits
    return answer


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_through_the_op_as_by_its_own_code(name: str, table: OpTable, counted: Counted) -> None:
    own = model(name)
    own.set_experts_implementation(EAGER)
    wanted = logits(own)
    assert fit_experts(own, table) == 2
    assert {module.__dict__[ATTRIBUTE].gate for module in own.modules() if ATTRIBUTE in module.__dict__} == {
        MODELS[name][1]
    }
    counted.calls = 0
    torch.testing.assert_close(logits(own), wanted, rtol=1e-4, atol=1e-4)
    assert counted.calls == 2


@pytest.mark.parametrize("wrong", [{"alpha": 1.6}, {"limit": 0.1}, {"shift": 0.0}, {"interleaved": False}])
def test_a_gate_that_differs_a_little_would_be_seen(wrong: dict[str, Any], table: OpTable) -> None:
    own = model("gpt-oss")
    wanted = logits(own)
    fit_experts(own, table)
    for module in own.modules():
        if ATTRIBUTE in module.__dict__:
            fitted: Fitted = module.__dict__[ATTRIBUTE]
            module.__dict__[ATTRIBUTE] = replace(fitted, gate=replace(fitted.gate, **wrong))
    assert (logits(own) - wanted).abs().max() > 1e-3


def test_operating_fits_the_experts_too(table: OpTable, counted: Counted) -> None:
    own = model("mixtral")
    wanted = logits(own)
    assert operate(own, table).experts == 2
    counted.calls = 0
    torch.testing.assert_close(logits(own), wanted, rtol=1e-3, atol=1e-3)
    assert counted.calls == 2
    assert own.config._experts_implementation == NAME


def test_the_library_serves_where_there_is_only_the_reference(ops: OpTable) -> None:
    own = model("mixtral")
    before = own.config._experts_implementation
    assert fit_experts(own, ops) == 0
    assert own.config._experts_implementation == before != NAME


@pytest.mark.parametrize("change", ["gate", "answer", "one", "stack"])
def test_models_whose_experts_differ_stay_as_they_are(change: str, table: OpTable, monkeypatch: Any) -> None:
    own = model("mixtral")
    found = [module for module in own.modules() if hasattr(module, "gate_up_proj")]
    kind = type(found[0])
    if change == "gate":
        monkeypatch.setattr(kind, "_apply_gate", lambda self, both: both.chunk(2, -1)[0].relu() * both.chunk(2, -1)[1])
    if change == "answer":
        eager = kind.forward
        monkeypatch.setattr(kind, "forward", lambda *given: eager(*given) * 1.01)
    if change == "one":
        found[1].act_fn = nn.ReLU()
    if change == "stack":
        found[1].gate_up_proj = nn.Parameter(torch.randn(4, 95, 32))
    before = own.config._experts_implementation
    assert fit_experts(own, table) == 0
    assert own.config._experts_implementation == before
    assert not any(ATTRIBUTE in module.__dict__ for module in own.modules())


def test_an_op_that_fails_or_answers_wrongly_is_not_taken(table: OpTable) -> None:
    module = next(module for module in model("mixtral").modules() if hasattr(module, "gate_up_proj"))

    def fails(*_: Any) -> Tensor:
        raise RuntimeError("no kernel")

    assert fit(module, fails) is None
    assert fit(module, lambda *given: experts(*given) * 1.001) is None
    assert fit(module, lambda *given: experts(*given) * torch.nan) is None
    assert fit(module, experts) == Fitted(experts, Gate(), transposed=False)
    assert module.config._experts_implementation != EAGER


def test_stacks_are_read_when_they_are_used(table: OpTable) -> None:
    """They may have moved, and a copy of the model has its own."""
    own = model("gpt-oss")
    fit_experts(own, table)
    other = copy.deepcopy(own)
    wanted = logits(own)
    for module in other.modules():
        if ATTRIBUTE in module.__dict__:
            module.down_proj.zero_()
            module.down_proj_bias.zero_()
    assert torch.equal(logits(own), wanted)
    assert not torch.allclose(logits(other), wanted)

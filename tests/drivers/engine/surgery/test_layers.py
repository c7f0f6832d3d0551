"""Layers whose ops are carried out together answer as the library's, bit for bit, with adapters too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from llmos.drivers.engine import attention
from llmos.drivers.engine.lora.layout import AdapterStep
from llmos.drivers.engine.lora.target import MergedTarget, SharedInput
from llmos.drivers.engine.paged import PagedModel
from llmos.drivers.engine.pages import PagePool
from llmos.drivers.engine.quantized.stored import StoredLinear
from llmos.drivers.engine.steps import Row, RowStep, StepPlan
from llmos.drivers.engine.surgery.attention import fuse_attention
from llmos.drivers.engine.surgery.layers import FusedLayer, fuse_layers
from llmos.drivers.engine.surgery.operate import operate
from llmos.drivers.engine.surgery.units import FusedUnit
from llmos.drivers.ops.cpu.native import Native
from llmos.drivers.ops.cpu.ops import register_native
from llmos.drivers.ops.quantized import Scheme, round_to_nearest
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.reference_lora import lora_expand, lora_shrink
from llmos.drivers.ops.replay import Plain, Variant
from llmos.drivers.ops.table import OpTable

from .test_attention import SIZES, TOKENS, build, on_pages, run


def table(native: bool) -> OpTable:
    made = OpTable()
    register_reference(made)
    if native:
        register_native(made)
    return made


@pytest.fixture(params=["torch", "native"])
def ops(request: pytest.FixtureRequest) -> OpTable:
    if request.param == "native":
        fits, reason = Native().supports({"device": "cpu", "dtype": "float32"})
        if not fits:
            pytest.skip(reason)
    return table(request.param == "native")


def fused(kind: str, dtype: torch.dtype, ops: OpTable, **changed: Any) -> tuple[Any, Callable[[], torch.Tensor]]:
    """A model on pages with its attention fused, and a run of it."""
    model = build(kind, dtype, ops, **changed)
    layers, pages = on_pages(model, ops)
    fuse_attention(model, layers.modules, layers.meanings, ops, lambda: run(pages))
    return model, lambda: run(pages)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_fused_layers_answer_bit_for_bit(ops: OpTable, kind: str, dtype: torch.dtype) -> None:
    model, answer = fused(kind, dtype, ops, **({"sliding_window": 6} if kind == "mistral" else {}))
    expected = answer()
    assert fuse_layers(model, ops, answer) == 2
    assert all(type(layer) is FusedLayer for layer in model.model.layers)
    assert all(torch.equal(answer(), expected) for _ in range(5))


def stored(scheme: Scheme, activations: str, dtype: torch.dtype, **changed: Any) -> Any:
    """A model whose layers have quantized weights, not packed."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("llama", **SIZES | changed)
    model: Any = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval().requires_grad_(False)
    for name, part in list(model.model.named_modules()):
        if type(part) is nn.Linear:
            weight = round_to_nearest(part.weight, scheme)
            model.model.set_submodule(name, StoredLinear(weight, None, dtype, activations))
    return model


def packed(model: Any, ops: OpTable) -> Callable[[], torch.Tensor]:
    """Packs it, puts it on pages with its attention fused; a run of it."""
    operate(model, ops)
    model.set_attn_implementation(attention.NAME)
    layers, pages = on_pages(model, ops)
    fuse_attention(model, layers.modules, layers.meanings, ops, lambda: run(pages))
    return lambda: run(pages)


@pytest.mark.parametrize(("width", "activations"), [(8, "int8"), (4, "int8"), (8, "model")])
def test_layers_of_quantized_weights_are_repeated_where_all_is_served_alike(
    ops: OpTable, width: int, activations: str
) -> None:
    model = stored(Scheme(width, 32), activations, torch.float32)
    with torch.inference_mode():
        plain = model(torch.tensor([TOKENS])).logits
    answer = packed(model, ops)
    expected = answer()
    assert sum(isinstance(part, FusedUnit) for part in model.modules()) == 2
    replayed = ops.choose("replay", {"device": "cpu", "dtype": "float32"}).implementation.call is not Plain
    assert fuse_layers(model, ops, answer) == (0 if replayed and activations == "model" else 2)
    assert all(torch.equal(answer(), expected) for _ in range(3))
    torch.testing.assert_close(expected[-1], plain[0, -1], atol=2e-2, rtol=2e-2)


def floating(ops: OpTable, **changed: Any) -> tuple[Any, Callable[[], torch.Tensor]]:
    """A model on pages whose linear layers multiply e4m3, with its attention fused, and a run of it."""
    model = stored(Scheme(8, 0, "float"), "float8", torch.bfloat16, **changed)
    return model, packed(model, ops)


def counted(ops: OpTable, op: str, wrong: float = 0.0) -> list[int]:
    """Puts an implementation before the others whose calls are counted; its scales are off where they are to be."""
    chosen, calls = ops.choose(op, {"device": "cpu", "dtype": "bfloat16"}).implementation, [0]

    def call(*given: Any) -> Any:
        calls[0] += 1
        answer = chosen.call(*given)
        (answer[0] if isinstance(answer, tuple) else answer).scale.mul_(1.0 + wrong)
        return answer

    ops.register(op, "counted", call, lambda spec: (True, ""))
    return calls


def test_norms_hand_e4m3_to_products_that_multiply_it() -> None:
    """Bit for bit what the layer answers whose products round by themselves; not while something else reads inputs."""
    ops = table(native=False)
    calls = [counted(ops, op) for op in ("rms_norm_float8", "add_rms_norm_float8")]
    model, answer = floating(ops)
    expected = answer()
    assert fuse_layers(model, ops, answer) == 2
    calls[0][0] = calls[1][0] = 0
    assert torch.equal(answer(), expected)
    assert calls == [[4], [4]]  # two layers, two steps
    attended = model.model.layers[1].self_attn
    shared = SharedInput(AdapterStep(), lora_shrink, lora_expand)
    attended.q_proj = MergedTarget(attended.q_proj, shared, 0, [32, 16, 16])
    assert torch.equal(answer(), expected) and calls == [[6], [8]]


def test_norms_that_would_change_an_answer_do_not_round() -> None:
    ops = table(native=False)
    calls = counted(ops, "add_rms_norm_float8", wrong=0.5)
    model, answer = floating(ops)
    expected = answer()
    assert fuse_layers(model, ops, answer) == 2 and calls[0] > 0
    calls[0] = 0
    assert torch.equal(answer(), expected) and calls == [0]


@pytest.mark.parametrize(("kind", "changed"), [("gemma2", {}), ("granite", {"residual_multiplier": 0.5})])
def test_layers_of_another_order_stay(ops: OpTable, kind: str, changed: dict[str, Any]) -> None:
    model, answer = fused(kind, torch.float32, ops, **changed)
    expected = answer()
    assert fuse_layers(model, ops, answer) == 0
    assert torch.equal(answer(), expected)


def test_away_from_pages_the_original_answers(ops: OpTable) -> None:
    model, answer = fused("llama", torch.float32, ops)
    fuse_layers(model, ops, answer)
    plain = build("llama", torch.float32, ops)
    for each in (model, plain):
        each.set_attn_implementation("sdpa")
    ids = torch.tensor([TOKENS, TOKENS[::-1]])
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, plain(ids).logits)


def test_a_part_that_is_no_op_keeps_the_layer_as_it_is(ops: OpTable) -> None:
    model, answer = fused("llama", torch.float32, ops)
    unit = model.model.layers[1].mlp
    assert type(unit) is FusedUnit
    unit.down_proj = torch.nn.Linear(64, 32, bias=False)
    assert fuse_layers(model, ops, answer) == 1
    assert type(model.model.layers[1]) is not FusedLayer


@pytest.mark.parametrize("op", ["add", "silu_mul", "paged_attention", "lora_shrink"])
def test_ops_of_two_providers_are_not_put_off_together(ops: OpTable, op: str) -> None:
    """What one carries out at once must not meet what another carries out later; where nothing is put off, it may."""
    other = ops.choose(op, {"device": "cpu", "dtype": "float32"}).implementation
    ops.register(op, "another", other.call, lambda spec: (True, ""))
    at_once = ops.choose("replay", {"device": "cpu", "dtype": "float32"}).implementation.call is Plain
    model, answer = fused("llama", torch.float32, ops)
    expected = answer()
    assert fuse_layers(model, ops, answer) == (2 if at_once else 0)
    assert torch.equal(answer(), expected)


def decode(pages: PagedModel, variant: Variant | None) -> list[torch.Tensor]:
    """Logits of rows that decode one by one and in company, over the border of a page."""
    one, two = Row("a", TOKENS, pages=[2, 0]), Row("b", TOKENS[5:], pages=[3, 1])
    steps = [[RowStep(one, 0, 3, 1)], [RowStep(two, 0, 2, 1)]]
    steps += [[RowStep(one, at, 1, 1), RowStep(two, at - 1, 1, 1)] for at in range(3, 20)]
    steps += [[RowStep(two, at, 1, 1)] for at in range(19, 22)]
    return [pages.run(StepPlan(step), variant) for step in steps]


def test_steps_repeat_on_the_pages_that_the_model_has_now(ops: OpTable) -> None:
    model = build("llama", torch.float32, ops)
    layers, first = on_pages(model, ops)
    expected = decode(first, None)
    fuse_attention(model, layers.modules, layers.meanings, ops, lambda: run(first))
    assert fuse_layers(model, ops, lambda: run(first)) == 2
    for again in (False, True):
        pages = PagedModel(model, layers, PagePool(layers.shapes, 4, model.dtype), ops) if again else first
        for keys, values in pages.pool.views():
            keys.zero_()
            values.zero_()
        for repeated, asked in zip(decode(pages, Variant(0, None)), expected, strict=True):
            torch.testing.assert_close(repeated, asked)
        assert all(keys.any() and values.any() for keys, values in pages.pool.views())

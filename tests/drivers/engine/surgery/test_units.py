"""Norms and gated units are replaced only by what answers the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from llmos.drivers.engine.surgery.merged import merge
from llmos.drivers.engine.surgery.units import FusedLayerNorm, FusedNorm, fused_norm, fused_unit
from llmos.drivers.ops.linear import PlainLinear
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.reference_layers import layer_norm
from llmos.drivers.ops.table import OpTable

DTYPES = (torch.float32, torch.bfloat16)
WIDTH = 24


class Unit(nn.Module):
    """A gated unit as the library writes it; `wrong` is one that only looks like it."""

    def __init__(self, act: Any = F.silu, wrong: bool = False) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(WIDTH, 40, bias=False), nn.Linear(WIDTH, 40, bias=False)
        self.down_proj = nn.Linear(40, WIDTH, bias=False)
        self.act, self.wrong = act, wrong

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        gate, up = (up, gate) if self.wrong else (gate, up)
        down: torch.Tensor = self.down_proj(self.act(gate) * up)
        return down


class Centred(LlamaRMSNorm):  # type: ignore[misc]
    """A norm of the same parameters that does something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = super().forward(x - x.mean(-1, keepdim=True))
        return normed


def spec(dtype: torch.dtype) -> dict[str, str]:
    return {"device": "cpu", "dtype": str(dtype).removeprefix("torch.")}


def weighted(module: Any, dtype: torch.dtype) -> Any:
    torch.nn.init.normal_(module.weight)
    return module.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma2RMSNorm])
def test_a_norm_is_replaced_by_one_that_answers_the_same(ops: OpTable, dtype: torch.dtype, kind: Any) -> None:
    norm = weighted(kind(WIDTH, eps=1e-5), dtype)
    made = fused_norm(norm, ops, spec(dtype))
    assert made is not None
    x = torch.randn(2, 7, WIDTH).to(dtype)
    torch.testing.assert_close(made(x), norm(x))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", [LlamaRMSNorm, GptOssRMSNorm])
def test_weights_that_a_model_keeps_wider_are_narrowed_where_that_loses_nothing(
    ops: OpTable, kind: Any, exact: bool
) -> None:
    """Ops take weights of the model's dtype alone. Llama's norm answers in the wider one then, and is left alone."""
    norm = weighted(kind(WIDTH, eps=1e-5), torch.bfloat16).float()
    if not exact:
        norm.weight.data[3] += 1e-6
    made = fused_norm(norm, ops, spec(torch.bfloat16))
    if kind is LlamaRMSNorm or not exact:
        assert made is None
        return
    assert made is not None and made.weight.dtype == torch.bfloat16
    x = torch.randn(2, 7, WIDTH).to(torch.bfloat16)
    assert torch.equal(made(x), norm(x))


def test_what_only_looks_like_a_norm_stays(ops: OpTable) -> None:
    assert fused_norm(weighted(Centred(WIDTH), torch.float32), ops, spec(torch.float32)) is None
    assert fused_norm(nn.LayerNorm(WIDTH), ops, spec(torch.float32)) is None
    assert fused_norm(nn.Linear(WIDTH, WIDTH), ops, spec(torch.float32)) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_norm_is_replaced_where_somebody_serves_it(dtype: torch.dtype, bias: bool) -> None:
    table = OpTable()
    register_reference(table)
    calls: list[torch.Tensor] = []

    def other(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(x)
        return layer_norm(x, *rest)

    norm = weighted(nn.LayerNorm(WIDTH, eps=1e-3, bias=bias), dtype)
    if bias:
        torch.nn.init.normal_(norm.bias)
    assert fused_norm(norm, table, spec(dtype)) is None
    table.register("layer_norm", "other", other, lambda _: (True, ""))
    made = fused_norm(norm, table, spec(dtype))
    assert isinstance(made, FusedLayerNorm) and made.normalized_shape == norm.normalized_shape
    x = torch.randn(2, 7, WIDTH).to(dtype)
    assert torch.equal(made(x), norm(x)) and calls == [x]
    assert fused_norm(weighted(Centred(WIDTH), dtype), table, spec(dtype)) is None
    assert isinstance(fused_norm(weighted(LlamaRMSNorm(WIDTH), dtype), table, spec(dtype)), FusedNorm)
    assert fused_norm(weighted(nn.LayerNorm(WIDTH), torch.float64), table, spec(dtype)) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", [F.silu, F.gelu, lambda x: F.gelu(x, approximate="tanh")])
def test_a_gated_unit_is_replaced_by_one_that_answers_the_same(ops: OpTable, dtype: torch.dtype, act: Any) -> None:
    unit = Unit(act).to(dtype)
    x = torch.randn(2, 7, WIDTH).to(dtype)
    expected = unit(x)
    merge(unit, PlainLinear)
    made = fused_unit(unit, ops, spec(dtype))
    assert made is not None
    torch.testing.assert_close(made(x), expected)


def test_what_only_looks_like_a_gated_unit_stays(ops: OpTable) -> None:
    wrong, other = Unit(wrong=True), Unit(torch.sigmoid)
    for unit in (wrong, other):
        merge(unit, PlainLinear)
        assert fused_unit(unit, ops, spec(torch.float32)) is None
    assert fused_unit(Unit(), ops, spec(torch.float32)) is None  # its layers are not merged

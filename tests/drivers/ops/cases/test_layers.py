"""The cases of layers pass with their reference, and each tells what it is about from what is nearly the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from llmos.drivers.ops import reference_layers as layers
from llmos.drivers.ops.cases.case import Case, check
from llmos.drivers.ops.cases.layers import cases
from llmos.drivers.ops.float8 import Float8Rows, float8_rows

CPU = torch.device("cpu")
TINY = list(cases(tiny=True))


def reference(op: str) -> Any:
    return getattr(layers, op)


def test_the_reference_passes_its_own_cases_in_every_dtype() -> None:
    for case in TINY:
        for dtype in case.dtypes:
            verdict = check(case, reference(case.op), reference(case.op), CPU, dtype)
            assert verdict.ok, (case.op, case.name, dtype, verdict)
    assert {case.op for case in TINY} == {case.op for case in cases(tiny=False)} == {
        "add", "rms_norm", "add_rms_norm", "rms_norm_float8", "add_rms_norm_float8", "layer_norm", "add_layer_norm",
        "silu_mul", "gelu_mul", "gelu_tanh_mul", "rope",
    }  # fmt: skip


def cut_off(*given: Any) -> Float8Rows:
    """Towards zero, where numbers are to be rounded to nearest."""
    rows = layers.rms_norm_float8(*given)
    norm = layers.rms_norm(*given)
    beyond = rows.worth().abs() > norm.float().abs()
    rows.numbers.view(torch.uint8)[: rows.tokens, : rows.shape[-1]] -= beyond.view(-1, rows.shape[-1]).byte()
    return rows


def of(op: str) -> list[Case]:
    return [case for case in TINY if case.op == op]


@pytest.mark.parametrize(
    ("op", "other"),
    [
        ("rms_norm", lambda x, weight, eps, *flags: layers.layer_norm(x, weight, None, eps)),
        ("add_rms_norm", lambda x, residual, *rest: (layers.rms_norm(x, *rest), residual + x)),
        ("rms_norm_float8", lambda x, weight, eps, *flags: float8_rows(layers.layer_norm(x, weight, None, eps))),
        ("rms_norm_float8", cut_off),
        ("add_rms_norm_float8", lambda x, residual, *rest: (layers.rms_norm_float8(x, *rest), residual + x)),
        ("layer_norm", lambda x, weight, bias, eps: x * (x.var(-1, correction=0, keepdim=True) + eps).rsqrt()),
        ("silu_mul", lambda x: layers.gelu_mul(x)),
        ("rope", lambda q, k, cos, sin: layers.rope(q, k, cos, -sin)),
    ],
)
def test_another_formula_fails(op: str, other: Any) -> None:
    failed = [not check(case, other, reference(op), CPU, "bfloat16").ok for case in of(op)]
    assert failed and all(failed)


def test_the_offset_is_seen() -> None:
    def without(x: Tensor, weight: Tensor, eps: float, *flags: bool) -> Tensor:
        return layers.rms_norm(x, weight, eps)

    seen = [case.name for case in of("rms_norm") if not check(case, without, layers.rms_norm, CPU, "bfloat16").ok]
    assert seen and all("1 + w" in name for name in seen)

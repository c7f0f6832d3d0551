"""Verdicts: what is right is accepted, and each way to be wrong is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmos.drivers.ops.cases.case import Call, Case, Draws, Verdict, check

CPU = torch.device("cpu")


def double(x: Tensor, into: Tensor, by: float = 2.0) -> Tensor:
    into.copy_(x + 1)
    return x * by


def make(device: torch.device, dtype: torch.dtype) -> Call:
    draws = Draws(7, device, dtype)
    x = draws.normal(4, 64)
    return Call((x, torch.zeros_like(x)), {"by": 2.0}, written=(1,))


CASE = Case("double", "some", {"width": 64}, make)


def verdict(implementation: Callable[..., Any], dtype: str = "float32", case: Case = CASE) -> Verdict:
    return check(case, implementation, double, CPU, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_rounds_where_the_reference_does_is_right(dtype: str) -> None:
    found = verdict(double, dtype)
    assert found.ok and found.worst <= found.allowed, found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_percent_too_much_is_seen_in_every_dtype(dtype: str) -> None:
    def more(x: Tensor, into: Tensor, by: float) -> Tensor:
        answer = double(x, into, by)
        answer[3, 5] += 0.05 * x.abs().max()
        return answer

    found = verdict(more, dtype)
    assert not found.ok and "(3, 5)" in found.what and found.what.startswith("value 0"), found


def test_what_is_written_is_compared() -> None:
    found = verdict(lambda x, into, by: x * by)
    assert not found.ok and found.what.startswith("value 1")


def test_shape_number_and_kind_are_compared() -> None:
    assert not verdict(lambda x, into, by: double(x, into)[:2]).ok
    assert not verdict(lambda x, into, by: (double(x, into), x)).ok
    assert not verdict(lambda x, into, by: (double(x, into), None)[1]).ok
    assert not verdict(lambda x, into, by: double(x, into) * torch.nan).ok


def test_infinities_are_compared_by_where_they_are() -> None:
    def cut(x: Tensor, into: Tensor, by: float, at: int = 0) -> Tensor:
        answer = double(x, into, by)
        answer[:, at] = -torch.inf
        return answer

    assert check(CASE, cut, cut, CPU, "float32").ok
    assert not check(CASE, lambda x, into, by: cut(x, into, by, 1), cut, CPU, "float32").ok


def test_numbers_that_are_not_floating_must_be_equal() -> None:
    def which(x: Tensor, into: Tensor, by: float) -> Tensor:
        return x.argmax(-1)

    assert check(CASE, which, which, CPU, "float32").ok
    assert not check(CASE, lambda *args, **options: which(*args, **options) + 1, which, CPU, "float32").ok


def test_draws_are_the_same_in_every_dtype_but_for_rounding() -> None:
    wide, narrow = Draws(3, CPU, torch.float32), Draws(3, CPU, torch.bfloat16)
    assert torch.equal(wide.normal(5, 7).bfloat16(), narrow.normal(5, 7))
    assert torch.equal(wide.integers(9, low=0, high=5), narrow.integers(9, low=0, high=5))
    assert wide.permutation(9) == narrow.permutation(9)


def test_a_provider_is_asked_with_device_and_dtype() -> None:
    assert CASE.asked(CPU, "bfloat16") == {"width": 64, "device": "cpu", "dtype": "bfloat16"}

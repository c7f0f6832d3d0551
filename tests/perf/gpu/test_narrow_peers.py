"""Others' kernels for 4 bits: each must compute the product that it is timed for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gpu import narrow_peers
from gpu.setting import Setting

SETTING = Setting("cpu", True, Path())


def test_numbers_of_4_bits_stand_for_the_weights() -> None:
    weight = torch.randn(6, 64)
    numbers, both = narrow_peers.grouped(weight, 32)
    assert int(numbers.min()) >= 1 and int(numbers.max()) == 15 and both.shape == (2, 6, 2)
    scale = both[..., 0].float().T.repeat_interleave(32, dim=1)
    assert float(((numbers - 8) * scale - weight).norm() / weight.norm()) < narrow_peers.FARTHEST


def test_a_kernel_is_timed_when_it_is_right() -> None:
    found = list(narrow_peers.run(SETTING))
    assert [list(piece) for piece in found] == [["1"], ["3"]]
    assert all(seconds["torch"] > 0.0 for piece in found for seconds in piece.values())


def test_a_kernel_that_computes_something_else_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow_peers, "makers", lambda setting: [("other", lambda weight: lambda x: x @ weight.T / 2)])
    with pytest.raises(RuntimeError, match=r"other is off by 0\.50"):
        list(narrow_peers.run(SETTING))

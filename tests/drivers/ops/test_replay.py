"""The reference repeats nothing."""

from __future__ import annotations

import torch

from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.replay import Inputs, Variant
from llmos.drivers.ops.table import OpTable


def test_the_reference_runs_the_function_each_time() -> None:
    table = OpTable()
    register_reference(table)
    replay = table.choose("replay", {"device": "cpu", "dtype": "float64"}).implementation.call()
    x, calls = torch.randn(1, 2, 3), []
    for variant in (None, Variant(0, None), Variant(0, None)):
        assert torch.equal(replay(x, Inputs([]), variant, lambda: calls.append(0) or x + x), x + x)
    assert len(calls) == 3

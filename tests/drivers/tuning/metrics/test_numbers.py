"""Errors and correlations against the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.metrics.numbers import regression

VALUES = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=20)


def ranks(values: np.ndarray) -> np.ndarray:
    """Equal values share the mean of their ranks."""
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


@given(VALUES)
def test_figures_are_those_of_the_formulas(pairs: list[tuple[int, int]]) -> None:
    said, wanted = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    wants = {"mse": ((said - wanted) ** 2).mean(), "mae": abs(said - wanted).mean()}
    if np.ptp(wanted):
        wants["r2"] = 1 - ((said - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum()
        if np.ptp(said):
            wants["pearson"] = np.corrcoef(said, wanted)[0, 1]
            wants["spearman"] = np.corrcoef(ranks(said), ranks(wanted))[0, 1]
    found = regression(torch.tensor(said, dtype=torch.float32), torch.tensor(wanted, dtype=torch.float32))
    assert found == pytest.approx(wants, abs=1e-5)

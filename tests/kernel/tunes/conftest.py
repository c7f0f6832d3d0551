"""A kernel whose null device tunes."""

from __future__ import annotations

import pytest
from scripted import Inside, Program


@pytest.fixture
def kernel(kernel: Inside) -> Inside:
    kernel.tuning()
    return kernel


@pytest.fixture
def model(program: Program) -> int:
    return program.load("tiny")

"""The compiled library, once a run; where there is none its tests are skipped with the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
import torch

from llmos.drivers.ops.cpu import build
from llmos.drivers.ops.cpu.native import Native


@pytest.fixture(scope="session")
def native() -> Native:
    missing = build.NEEDED - build.cpu_flags()
    if missing or not shutil.which(os.environ.get(build.COMPILER_VARIABLE, "g++")):
        pytest.skip(f"no compiler, or the processor has no {', '.join(sorted(missing))}")
    library = Native()
    fits, reason = library.supports({"device": "cpu", "dtype": "float32"})
    assert fits, reason
    return library


@pytest.fixture(params=[1, 2], ids=["1-thread", "2-threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)

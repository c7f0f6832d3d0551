"""The compiled library, once a run; where there is none its tests are skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from llmos.drivers.ops.cpu.native import Native


@pytest.fixture(scope="session")
def native() -> Native:
    library = Native()
    fits, reason = library.supports({"device": "cpu", "dtype": "float32"})
    if not fits:
        pytest.skip(reason)
    return library


@pytest.fixture(params=[1, 2], ids=["1-thread", "2-threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)

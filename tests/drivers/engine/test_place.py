"""The CPU as a place: what it says about itself."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.engine.pages import pool_pages
from llmos.drivers.engine.place import Place, Processor


def test_the_processor_is_a_place_where_everything_lies_already() -> None:
    place: Place = Processor()
    module = torch.nn.Linear(2, 2)
    address = module.weight.data_ptr()
    place.move(module, lambda done, total: None)
    place.collect()
    assert place.device == torch.device("cpu")
    assert module.weight.data_ptr() == address
    weights = module.weight.detach().clone()
    rested = place.rest([module.weight], [])
    assert rested is not None
    assert rested.wake(lambda done, total: None) == ""
    assert torch.equal(module.weight, weights)
    assert place.free_bytes() > 0


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32), (torch.float32, torch.float32)],
)
def test_the_processor_computes_in_what_it_is_fast_in(stored: torch.dtype, wanted: torch.dtype) -> None:
    assert Processor().dtype(stored) == wanted


def test_all_pages_that_are_wanted_are_given() -> None:
    assert Processor().pages(1000, 1 << 40, 1 << 50) == pool_pages(1000)

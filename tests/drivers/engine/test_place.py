"""The CPU as a place: what it says about itself."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.engine.place import Place, Processor


def test_the_processor_is_a_place_where_everything_lies_already() -> None:
    place: Place = Processor()
    module = torch.nn.Linear(2, 2)
    address = module.weight.data_ptr()
    place.move(module, lambda done, total: None)
    place.collect()
    assert place.device == torch.device("cpu")
    assert module.weight.data_ptr() == address
    assert place.rest([module.weight], []) is None
    assert place.free_bytes() > 0


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32), (torch.float32, torch.float32)],
)
def test_the_processor_computes_in_what_it_is_fast_in(stored: torch.dtype, wanted: torch.dtype) -> None:
    assert Processor().dtype(stored) == wanted


def test_memory_that_is_not_given_is_known_from_other_errors() -> None:
    place = Processor()
    full = place.no_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert full is not None and full.free > 0
    assert place.no_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert place.fault(RuntimeError("CUDA error: an illegal memory access was encountered")) is None


def test_all_pages_that_are_wanted_are_given() -> None:
    assert Processor().pages(1000, 10, 1 << 40) == 1000

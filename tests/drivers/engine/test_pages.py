"""Pages of keys and values: views of layers, moves, and how many a model gets."""

from __future__ import annotations

import pytest
import torch

from llmos.drivers.engine.pages import LayerShape, PagePool, page_bytes, pool_pages
from llmos.drivers.engine.steps import PAGE_TOKENS, StepPlan

LAYERS = (LayerShape(2, 4, 3), LayerShape(1, 8, 8))


def filled(pages: int = 4, host_pages: int = 2) -> tuple[PagePool, list[tuple[torch.Tensor, torch.Tensor]]]:
    pool = PagePool(LAYERS, pages, torch.float32, host_pages=host_pages)
    views = pool.views()
    for number, view in enumerate(view for pair in views for view in pair):
        for page in range(pages):
            view[page] = 10 * number + page
    return pool, views


def contents(views: list[tuple[torch.Tensor, torch.Tensor]], page: int) -> list[float]:
    """One value for each view of a page, which must be the same everywhere in it."""
    found = [view[page] for pair in views for view in pair]
    assert all((part == part.flatten()[0]).all() for part in found)
    return [float(part.flatten()[0]) for part in found]


def test_layers_see_their_own_part_and_no_other() -> None:
    _, views = filled()
    assert [[tuple(view.shape) for view in pair] for pair in views] == [
        [(4, 2, PAGE_TOKENS, 4), (4, 2, PAGE_TOKENS, 3)], [(4, 1, PAGE_TOKENS, 8), (4, 1, PAGE_TOKENS, 8)],
    ]  # fmt: skip
    for page in range(4):
        assert contents(views, page) == [page, 10 + page, 20 + page, 30 + page]


def test_pages_move_whole_and_in_order() -> None:
    pool, views = filled()
    pool.move(StepPlan(swap_out=[(1, 0)], swap_in=[(0, 2)], copies=[(2, 3)]))
    assert contents(views, 3) == contents(views, 2) == [1, 11, 21, 31]
    assert contents(views, 0) == [0, 10, 20, 30]


def test_bytes_are_those_of_the_memory_behind() -> None:
    pool, views = filled()
    assert pool.bytes == 6 * page_bytes(LAYERS, torch.float32)
    assert views[0][0].untyped_storage().nbytes() == 4 * page_bytes(LAYERS, torch.float32)


def test_a_model_gets_pages_for_its_whole_context_and_for_several_requests() -> None:
    assert pool_pages(100_000) * PAGE_TOKENS >= 100_000
    assert pool_pages(512) * PAGE_TOKENS >= 8 * 512
    assert pool_pages(100_000) < 100_000 // PAGE_TOKENS + 3


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_numbers_of_8_bits_have_their_scales_beside_them(dtype: torch.dtype) -> None:
    pool = PagePool(LAYERS, 4, dtype, host_pages=1)
    parts = [part for pair in pool.views() for part in pair]
    parts += [scale for each in pool.scales() for scale in each.values()]
    assert {part.dtype for part in parts[:4]} == {dtype}
    assert [tuple(scale.shape) for scale in parts[4:]] == 2 * [(4, 2, PAGE_TOKENS)] + 2 * [(4, 1, PAGE_TOKENS)]
    assert {scale.dtype for scale in parts[4:]} == {torch.float32}
    for number, part in enumerate(parts):
        for page in range(4):
            part[page] = 10 * number + page
    pool.move(StepPlan(swap_out=[(1, 0)], swap_in=[(0, 2)], copies=[(2, 3)]))
    for number, part in enumerate(parts):
        held = [part[page].float().unique().tolist() for page in range(4)]
        exact = [float(torch.tensor(10.0 * number + page).to(part.dtype)) for page in (0, 1, 1, 1)]
        assert held == [[value] for value in exact]


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bfloat16])
def test_every_byte_of_a_page_is_some_number_or_scale(dtype: torch.dtype) -> None:
    pool = PagePool(LAYERS, 3, dtype, host_pages=2)
    parts = [part for pair in pool.views() for part in pair]
    parts += [scale for each in pool.scales() for scale in each.values()]
    assert sum(part[0].numel() * part.element_size() for part in parts) == page_bytes(LAYERS, dtype)
    assert pool.tensor.nbytes == 3 * page_bytes(LAYERS, dtype)
    assert pool.bytes == 5 * page_bytes(LAYERS, dtype)


def test_scales_cost_four_bytes_for_each_head() -> None:
    shape = [LayerShape(8, 128, 128)]
    assert page_bytes(shape, torch.int8) == PAGE_TOKENS * 8 * (256 + 8)
    assert page_bytes(shape, torch.bfloat16) == PAGE_TOKENS * 8 * 512

"""What is kept of conversations while their model sleeps, page by page."""

from __future__ import annotations

import torch

from llmos.drivers.engine.blocks import BlockManager
from llmos.drivers.engine.kept import Kept, bytes_of, copied, filled
from llmos.drivers.engine.pages import LayerShape, PagePool
from llmos.drivers.engine.steps import PAGE_TOKENS, Row

LAYERS = (LayerShape(2, 8, 8),)
PLENTY = 1 << 30


def pool_of(pages: int, seed: int = 0) -> PagePool:
    pool = PagePool(LAYERS, pages, torch.float32)
    pool.tensor.copy_(torch.randn(pool.tensor.shape, generator=torch.Generator().manual_seed(seed)))
    return pool


def computed(blocks: BlockManager, id: str, tokens: int, salt: bytes = b"") -> Row:
    row = Row(id, list(range(tokens + 1)), salt)
    assert blocks.grow(row, tokens)
    row.computed = tokens
    blocks.publish(row)
    return row


def test_pages_come_back_as_they_were_in_other_places() -> None:
    before, after = pool_of(8), pool_of(6, seed=1)
    blocks, later = BlockManager(8), BlockManager(6)
    computed(blocks, "other", 20, b"other")
    row = computed(blocks, "c", 2 * PAGE_TOKENS + 5)
    kept = copied("P", row, before, {}, PLENTY)
    assert kept is not None and (kept.computed, len(kept.parts)) == (2 * PAGE_TOKENS + 5, 3)
    back = Row("c", list(row.tokens), row.salt)
    assert filled(back, kept, later, after)
    assert back.computed == row.computed and back.published == 2
    for old, new in zip(row.pages, back.pages, strict=True):
        assert torch.equal(before.tensor[old], after.tensor[new])


def test_a_page_that_two_hold_is_kept_once_and_filled_once() -> None:
    pool, blocks = pool_of(8), BlockManager(8)
    row = computed(blocks, "a", 2 * PAGE_TOKENS)
    fork = blocks.fork(row, "b")
    pages: dict[int, torch.Tensor] = {}
    first = copied("P", row, pool, pages, PLENTY)
    second = copied("P", fork, pool, pages, 0)
    assert first is not None and second is not None, "what is there already takes no room"
    assert bytes_of({"a": first, "b": second}) == 2 * pool.page_bytes
    later = BlockManager(2)
    for id, kept in (("a", first), ("b", second)):
        assert filled(Row(id, list(row.tokens)), kept, later, pool_of(2))
    assert later.used == 2


def test_without_room_nothing_is_kept_and_nothing_taken() -> None:
    pool, blocks = pool_of(4), BlockManager(4)
    row = computed(blocks, "a", 2 * PAGE_TOKENS)
    pages: dict[int, torch.Tensor] = {}
    assert copied("P", row, pool, pages, 2 * pool.page_bytes - 1) is None and pages == {}
    assert copied("P", Row("b", [1]), pool, pages, PLENTY) is None
    kept = copied("P", row, pool, pages, 2 * pool.page_bytes)
    assert kept is not None
    small = BlockManager(1)
    assert not filled(Row("a", list(row.tokens)), kept, small, pool_of(1)) and small.used == 0


def test_bytes_of_states_of_other_kinds_count_too() -> None:
    assert bytes_of({"c": Kept("G", 3, [torch.zeros(10), torch.zeros(5)], state=object())}) == 60

"""How much of a GPU a model's pages get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from late_lanes import LateLanes

from llmos.drivers.devices.cuda.place import CudaPlace, page_count
from llmos.drivers.engine.steps import PAGE_TOKENS


@given(context=st.integers(1, 200_000), each=st.integers(1, 1 << 24), room=st.integers(0, 1 << 37))
def test_pages_hold_one_sequence_and_no_more_than_there_is_room_for(context: int, each: int, room: int) -> None:
    pages = page_count(context, each, room)
    assert (pages - 1) * PAGE_TOKENS >= context
    alone = -(-context // PAGE_TOKENS) + 1
    assert pages == alone or pages * each <= room


def test_with_much_room_many_requests_have_pages() -> None:
    assert page_count(32_768, 1 << 21, 1 << 50) * PAGE_TOKENS >= 64 * 2048
    assert page_count(512, 1 << 10, 1 << 50) * PAGE_TOKENS >= 64 * 512
    assert page_count(512, 1 << 10, 1 << 50) == page_count(512, 1 << 10, 1 << 51)


class Counted(CudaPlace):
    """A GPU with so much memory, whatever is there."""

    def free_bytes(self) -> int:
        return 1000 << 20


def test_what_goes_first_is_not_given_away() -> None:
    place = Counted(torch.device("cpu"), 0.5, LateLanes())
    assert place.pages(16, 1 << 20, 0) == 65  # all that is wanted
    assert place.pages(16, 16 << 20, 0) == 31
    assert place.pages(1 << 24, 1 << 10, 0) == (1 << 20) + 1  # one sequence, though it does not fit
    assert place.pages(16, 4 << 20, 800 << 20) == 25
    assert place.pages(16, 4 << 20, 2000 << 20) == 2


def test_where_segments_cannot_be_had_the_reason_is_told_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    place, weight = Counted(torch.device("cpu"), 0.5, LateLanes()), torch.arange(4.0)
    anchor = place.anchor([weight], [])
    assert anchor.held is None and "no-such-compiler" in anchor.why
    monkeypatch.delenv("CC")
    assert place.anchor([weight], []) == anchor, "it is not tried for each model"
    assert place.dropped_bytes() == 0 and weight.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert not list(tmp_path.rglob("*.so"))


class Pinless(LateLanes):
    """The host has nothing to pin."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self._said = said

    def buffer(self, bytes: int) -> torch.Tensor:
        raise RuntimeError(self._said)


def test_without_memory_to_pin_nothing_rests_and_nothing_is_lost() -> None:
    weight = torch.arange(4.0)
    assert Counted(torch.device("cpu"), 0.5, Pinless("CUDA error: out of memory")).rest([weight], []) is None
    with pytest.raises(RuntimeError, match="invalid argument"):
        Counted(torch.device("cpu"), 0.5, Pinless("CUDA error: invalid argument")).rest([weight], [])
    assert weight.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_it_computes_in_what_is_stored_and_keeps_what_sleeps() -> None:
    place = Counted(torch.device("cpu"), 0.5, LateLanes())
    assert place.dtype(torch.float16) == torch.float16 and place.dtype(torch.float32) == torch.float32
    weight = torch.arange(4.0)
    rested = place.rest([weight], [])
    assert rested is not None and rested.host_bytes == 16 and weight.untyped_storage().nbytes() == 0
    rested.wake(lambda done, total: None)
    assert weight.tolist() == [0.0, 1.0, 2.0, 3.0]

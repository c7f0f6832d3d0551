"""What the products of adapters must be, for every implementation of the two ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from llmos.drivers.ops.reference_lora import Segment, Slots, segments_of

PLACES, INS, OUTS = 4, 37, 70


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    """Some places, each with some tokens, after tokens of nobody."""
    places = draw(st.lists(st.integers(0, PLACES - 1), min_size=1, unique=True).map(sorted))
    found, end = [], draw(st.integers(0, 3))
    for place in places:
        start, end = end, end + draw(st.one_of(st.integers(1, 5), st.integers(15, 20)))
        found.append(Segment(place, start, end))
    return found


def check_products(
    shrink: Callable[..., Tensor], expand: Callable[..., None], found: Sequence[Segment], rank: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Both ops against the formula, tokens after the last segment unchanged; what they gave."""
    torch.manual_seed(0)
    made, end = segments_of(found), found[-1].end
    x, a = torch.randn(end + 2, INS).to(dtype), torch.randn(PLACES, 2 * rank, INS).to(dtype)
    y, b = torch.randn(end + 2, 2 * OUTS).to(dtype), torch.randn(PLACES, rank, OUTS).to(dtype)
    hidden = shrink(x, a, made)
    wanted_hidden, wanted = torch.zeros(end, 2 * rank), y.float().clone()
    for place, start, stop in found:
        wanted_hidden[start:stop] = x[start:stop].float() @ a[place].float().t()
        own = hidden[start - made.start : stop - made.start, rank:].float()
        wanted[start:stop, OUTS:] += own @ b[place].float()
    given = y.clone()
    expand(given[:, OUTS:], hidden[:, rank:], b, made)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 6e-2}
    torch.testing.assert_close(hidden.float(), wanted_hidden[made.start :], **close)
    torch.testing.assert_close(given.float(), wanted, **close)
    assert torch.equal(given[:, :OUTS], y[:, :OUTS]) and torch.equal(given[end:], y[end:])
    assert torch.equal(given[: made.start], y[: made.start])
    return hidden, given


def check_slots(
    shrink: Callable[..., Tensor], expand: Callable[..., None], ids: Sequence[int], first: int, rank: int,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    """Both ops token by token, slot ids in any order, two slices of y with columns of others around them."""
    torch.manual_seed(0)
    where = Slots(torch.tensor(ids, dtype=torch.int32), first)
    widths, starts = (OUTS, INS), (3, 3 + OUTS + 2)
    x, a = torch.randn(len(ids), INS).to(dtype), torch.randn(PLACES, 2 * rank, INS).to(dtype)
    y, b = torch.randn(len(ids), starts[1] + INS + 1).to(dtype), torch.randn(PLACES, rank, sum(widths)).to(dtype)
    hidden = shrink(x, a, where)
    wanted_hidden, wanted = torch.zeros(len(ids), 2 * rank), y.float().clone()
    for token, slot in enumerate(ids):
        if 0 <= slot - first < PLACES:
            wanted_hidden[token] = a[slot - first].float() @ x[token].float()
            matrices = b[slot - first].split(widths, 1)
            for own, start, matrix in zip(hidden[token].split(rank), starts, matrices, strict=True):
                wanted[token, start : start + matrix.shape[1]] += own.float() @ matrix.float()
    given = y.clone()
    expand(given, hidden, b, where, tuple(zip(starts, widths, strict=True)))
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 6e-2}
    torch.testing.assert_close(hidden.float(), wanted_hidden, **close)
    torch.testing.assert_close(given.float(), wanted, **close)
    nobody = torch.tensor([not 0 <= slot - first < PLACES for slot in ids])
    assert torch.equal(given[nobody], y[nobody]) and torch.equal(given[:, :3], y[:, :3])

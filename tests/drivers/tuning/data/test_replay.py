"""A buffer is a fair sample of all that passed, whatever the order; old rows have their share."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.data.replay import kept, mixed

ROWS = st.lists(st.integers(0, 500).map(lambda n: n.to_bytes(2, "big")), max_size=60)


@given(ROWS, ROWS, st.integers(0, 20), st.integers(-3, 3))
def test_a_buffer_and_the_next_rows_make_the_next_buffer(first: list[bytes], then: list[bytes], room: int, seed: int,
                                                         ) -> None:  # fmt: skip
    whole = kept([*then, *first], room, seed)
    assert whole == kept([*kept(first, room, seed), *then], room, seed)
    assert len(whole) == min(room, len({*first, *then}))


def test_every_row_is_as_likely_to_stay() -> None:
    rows = [n.to_bytes(2, "big") for n in range(20)]
    seen = Counter(row for seed in range(2000) for row in kept(rows, 5, seed))
    assert all(abs(seen[row] - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5 for row in rows)


@given(st.integers(0, 40), st.integers(0, 12), st.floats(0, 0.8), st.integers(0, 9))
def test_old_rows_have_their_share(new: int, old: int, share: float, seed: int) -> None:
    found = mixed([f"new {n}" for n in range(new)], [f"old {n}" for n in range(old)], share, seed)
    again = Counter(row for row in found if row.startswith("old"))
    assert found[:new] == [f"new {n}" for n in range(new)]
    if old:
        assert again.total() == pytest.approx(share * len(found), abs=1)
    else:
        assert not again
    if again:
        assert max(again.values()) - (min(again.values()) if len(again) == old else 0) <= 1, "none again before all"


def test_the_seed_settles_which() -> None:
    first, same, other = (mixed([1] * 9, range(10, 90), 0.5, seed) for seed in (1, 1, 2))
    assert first == same != other

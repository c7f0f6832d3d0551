"""Counts that forget what has come down to nothing."""

from __future__ import annotations

import pytest

from llmos.kernel.arbiter.counting import less, more


def test_what_comes_down_to_nothing_is_forgotten() -> None:
    counts: dict[str, int] = {}
    assert [more(counts, "a"), more(counts, "a"), more(counts, "b")] == [1, 2, 1]
    assert less(counts, "a") == 1 and less(counts, "b") == 0 and counts == {"a": 1}
    with pytest.raises(KeyError):
        less(counts, "b")

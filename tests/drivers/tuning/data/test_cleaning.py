"""What is left out is counted, and so is what stays."""

from __future__ import annotations

from llmos.drivers.tuning.data.cleaning import Cleaning, lengths_of
from llmos.drivers.tuning.data.example import IGNORED, Example


def test_the_first_of_equal_rows_stays() -> None:
    cleaning = Cleaning(dedupe=True)
    assert [cleaning.keeps(digest) for digest in (b"a", b"b", b"a", b"a")] == [True, True, False, False]
    assert cleaning.counts["rows"] == 4 and cleaning.counts["duplicates"] == 2


def test_equal_rows_stay_where_the_recipe_says_so() -> None:
    cleaning = Cleaning(dedupe=False)
    assert all(cleaning.keeps(digest) for digest in (b"a", b"a"))
    assert cleaning.counts["duplicates"] == 0


def test_the_spread_of_lengths() -> None:
    examples = [Example(range(n), [IGNORED] * (n - 1) + [1]) for n in range(2, 102)]
    assert lengths_of(examples) == {
        "examples": 100, "tokens": sum(range(2, 102)), "learned": 100, "shortest": 2, "p50": 52, "p95": 97, "p99": 101,
        "longest": 101, "mean": 51.5,
    }  # fmt: skip
    assert lengths_of([]) == {}
    assert lengths_of([Example((1, 2), (1, 2))])["p99"] == 2

"""Rows are held out by what they say."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.data.splits import digest_of, held_out

ROWS = st.dictionaries(st.sampled_from(["text", "label", "more"]), st.text(max_size=5) | st.integers() | st.none())
FRACTION = st.floats(0, 0.99)


@given(ROWS)
def test_the_order_of_fields_means_nothing(row: dict[str, Any]) -> None:
    assert digest_of(row) == digest_of(dict(reversed(row.items())))


@given(ROWS, ROWS)
def test_rows_that_differ_have_digests_that_differ(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (digest_of(first) == digest_of(second)) == (first == second)


@given(st.binary(min_size=16, max_size=16), FRACTION, FRACTION)
def test_a_larger_fraction_holds_out_what_a_smaller_one_did(digest: bytes, one: float, other: float) -> None:
    least, most = sorted((one, other))
    assert held_out(digest, least) <= held_out(digest, most)
    assert not held_out(digest, 0.0)


def test_the_fraction_is_what_is_asked_for() -> None:
    digests = [digest_of({"text": f"row {n}"}) for n in range(4000)]
    for fraction in (0.02, 0.1, 0.5):
        share = sum(held_out(digest, fraction) for digest in digests) / len(digests)
        assert abs(share - fraction) < 4 * (fraction * (1 - fraction) / len(digests)) ** 0.5


def test_a_digest_is_the_same_in_every_process() -> None:
    assert digest_of({"text": "héllo", "label": 3}).hex() == digest_of({"label": 3, "text": "héllo"}).hex()
    assert digest_of({"text": "a"}).hex() == "9a57a0a50316426c03d0549e09a06878"

"""Numbers, maps and lists in a recipe that are out of bounds are told with their name."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.checked import Checked
from llmos.syscalls.errors import BadArgument

KNOWN = {"share": "", "names": "", "inner": "", "words": "", "seed": ""}


def given(**fields: Any) -> Checked:
    return Checked("tune", KNOWN, fields)


def test_bounds_belong_to_the_range_or_not() -> None:
    assert given(share=0).share("share", 0.5) == 0 and given().share("share", 0.5) == 0.5
    assert given(share=2).within("share", 0, least=2, below=3) == 2
    for value, bounds in ((1, {"below": 1.0}), (0, {"above": 0.0}), (1.9, {"least": 2.0}), (float("nan"), {})):
        with pytest.raises(BadArgument, match="share") as caught:
            given(share=value).within("share", 0, **bounds)
        assert caught.value.name == "share" and caught.value.want.startswith("a number")


def test_maps_are_read_in_an_order_of_their_own() -> None:
    assert given(names={"b": "2", "a": "1"}).names("names", {}) == (("a", "1"), ("b", "2"))
    assert given(words={"Fox": ["dog"], "a": ["b", "c"]}).synonyms("words") == (("a", ("b", "c")), ("fox", ("dog",)))
    assert given(inner={"share": 0.25}).within_map("inner", KNOWN).share("share", 0) == 0.25
    with pytest.raises(BadArgument, match="shar"):
        given(inner={"shar": 1}).within_map("inner", KNOWN)


def test_a_seed_may_be_below_zero() -> None:
    assert given(seed=-7).seed("seed") == -7
    with pytest.raises(BadArgument):
        given(seed=0.5).seed("seed")

"""Stop strings, however the text was cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.engine.stops import StopMatcher
from llmos.syscalls.errors import BadArgument

few = st.text(alphabet="ab", min_size=0, max_size=30)
stops = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)


def reference(text: str, given_stops: list[str]) -> tuple[str, str | None]:
    """Read character by character: the first stop string to be complete ends the text; of several the longest."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in given_stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@given(few, stops, st.lists(st.integers(0, 100), max_size=6))
def test_cuts_make_no_difference(text: str, given_stops: list[str], places: list[int]) -> None:
    matcher = StopMatcher(given_stops)
    pieces = [matcher.feed(piece) for piece in cut(text, places)]
    assert ("".join(pieces) + matcher.flush(), matcher.matched) == reference(text, given_stops)


@given(few, stops)
def test_nothing_is_emitted_that_a_stop_string_could_still_take_back(text: str, given_stops: list[str]) -> None:
    matcher = StopMatcher(given_stops)
    emitted = ""
    for character in text:
        emitted += matcher.feed(character)
        assert reference(text, given_stops)[0].startswith(emitted)


def test_held_text_is_released_as_soon_as_it_is_sure() -> None:
    matcher = StopMatcher(["END"])
    assert [matcher.feed(piece) for piece in ("go EN", "d", "N", "E", "ND", "more")] == ["go ", "ENd", "N", "", "", ""]
    assert matcher.matched == "END"
    assert matcher.flush() == ""


@pytest.mark.parametrize("stops", [["a"] * 65, ["a" * 1025]])
def test_more_than_can_be_looked_for_is_refused(stops: list[str]) -> None:
    with pytest.raises(BadArgument, match="at most 64 of at most 1024"):
        StopMatcher(stops)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(BadArgument, match="empty"):
        StopMatcher(["ok", ""])

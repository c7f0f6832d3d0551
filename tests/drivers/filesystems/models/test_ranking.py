from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.filesystems.models.ranking import Candidate, ranked, reason, size_text


def candidate(path: str, **fields: Any) -> Candidate:
    return Candidate(**{
        "id": 1, "path": path, "version": "1", "current": True, "bytes": 3 << 29, "created": "2026-01-01T00:00:00Z",
        **fields,
    })  # fmt: skip


def names(found: list[Candidate], query: str = "", sort: str = "rank") -> list[str]:
    return [hit.path for _, hit in ranked(found, query, sort)]


def test_the_whole_name_goes_before_its_beginning_before_the_best_words() -> None:
    found = [candidate("/wordy", match=9.0), candidate("/org/fox-7", match=1.0), candidate("/fox", match=1.0)]
    assert names(found, "fox") == ["/fox", "/wordy", "/org/fox-7"]
    assert names(found, "FOX 7") == ["/org/fox-7", "/wordy", "/fox"]
    assert names(found, "org/fox-7")[0] == "/org/fox-7"
    assert ranked(found, "fox", "rank")[0][0] == 1 + round(1 / 9, 4)


def test_speed_and_quality_decide_between_equals() -> None:
    slow = candidate("/a", measured={"cpu0": {"tokens_per_s": 5.0}})
    fast = candidate("/b", measured={"cpu0": {"tokens_per_s": 5.0}, "cuda0": {"tokens_per_s": 90.0}})
    good = candidate("/c", measured={"": {"quality": 0.9}})
    assert names([slow, candidate("/0"), fast], "word") == ["/b", "/a", "/0"]
    assert names([candidate("/0"), good], "word") == ["/c", "/0"]
    assert names([candidate("/0"), good]) == ["/0", "/c"], "without words the order they come in is kept"


def test_the_newest_goes_before_and_then_the_name() -> None:
    found = [candidate("/b"), candidate("/c", created="2026-02-01"), candidate("/a"), candidate("/z", created="")]
    assert names(found, "word") == ["/c", "/a", "/b", "/z"]


def test_another_order_is_kept() -> None:
    assert names([candidate("/b"), candidate("/a", match=1.0)], "a", "size") == ["/b", "/a"]


@pytest.mark.parametrize(
    ("query", "sort", "asked", "places", "text"),
    [
        ("fox", "rank", (), {}, 'its name is "fox"; 1.5 GiB; 41.2 tokens/s measured on cpu0; quality 0.5'),
        ("f", "rank", ("task chat",), {"f": "name"},
         'its name starts with "f"; task chat; 1.5 GiB; 41.2 tokens/s measured on cpu0; quality 0.5'),
        ("red tail", "new", (), {"red": "card", "tail": "tags", "x": "card"},
         '"red", "x" in its card; "tail" in its tags; 1.5 GiB; stored 2026-01-01; 41.2 tokens/s measured on cpu0; '
         "quality 0.5"),
    ],
)  # fmt: skip
def test_the_reason_says_what_counted(query: str, sort: str, asked: Any, places: Any, text: str) -> None:
    measured = {"cpu0": {"tokens_per_s": 41.23}, "": {"quality": 0.5}, "null0": {"load_s": 1.0}}
    assert reason(candidate("/org/fox", measured=measured), query, sort, asked, places) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (9 << 40, "9216.0 GiB")]
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text

"""What plans learn from a device that was full."""

from __future__ import annotations

from llmos.kernel.memory.corrections import Corrections
from llmos.syscalls.types import LedgerRow


def row(what: str, size: int) -> LedgerRow:
    return LedgerRow(device="cpu0", what=what, owner="m", predicted=size, allocator=1, driver=2)


def sizes(rows: list[LedgerRow]) -> dict[str, int]:
    return {each.what: each.predicted for each in rows}


def test_what_was_missing_is_added_to_the_next_plan() -> None:
    corrections = Corrections()
    assert corrections.learn("a", "kv", 100, 160) == 60
    rows, reasons = corrections.apply("a", [row("weights", 50), row("kv", 100)])
    assert sizes(rows) == {"weights": 50, "kv": 160}
    assert reasons[0].text == "kv is planned 60 B larger: it ran out of memory before"
    assert corrections.apply("b", [row("kv", 100)]) == ([row("kv", 100)], [])


def test_a_use_that_was_not_planned_at_all_gets_a_row() -> None:
    corrections = Corrections()
    corrections.learn("a", "workspace", 0, 7)
    rows, _ = corrections.apply("a", [row("weights", 50)])
    added = LedgerRow(device="cpu0", what="workspace", owner="m", predicted=7)
    assert rows == [row("weights", 50), added]
    assert corrections.apply("a", [])[0] == []


def test_requests_that_run_out_together_lack_the_same_bytes() -> None:
    corrections = Corrections()
    assert [corrections.learn("a", "kv", 100, measured) for measured in (160, 150, 160, 100)] == [60, 60, 60, 0]
    assert sizes(corrections.apply("a", [row("kv", 100)])[0]) == {"kv": 160}


def test_what_is_missing_from_a_corrected_plan_comes_on_top() -> None:
    corrections = Corrections()
    corrections.loaded("a")
    corrections.learn("a", "kv", 100, 160)
    corrections.loaded("a")
    assert corrections.learn("a", "kv", 100, 110) == 70, "a driver knows of no corrections"
    assert corrections.learn("a", "kv", 100, 105) == 70
    assert sizes(corrections.apply("a", [row("kv", 100)])[0]) == {"kv": 170}


def test_what_was_learned_longest_ago_is_forgotten() -> None:
    corrections = Corrections(most=2)
    for recipe in ("a", "b", "a", "c"):
        corrections.learn(recipe, "kv", 0, 1)
    assert [bool(corrections.apply(recipe, [row("kv", 1)])[1]) for recipe in "abc"] == [True, False, True]

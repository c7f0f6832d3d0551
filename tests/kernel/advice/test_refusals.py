"""Requests that were turned away: each is known by its id, and many are one decision about everything else."""

from __future__ import annotations

import pytest
from msgspec import to_builtins

from llmos.kernel.advice.refusals import CAUSES, Refusals, Refused, cause, unit_of
from llmos.syscalls.errors import Busy, OverQuota
from llmos.syscalls.types import Reason, Record
from llmos.syscalls.wire import error_frames


def _busy(request: str = "r1", wait: float = 3.0) -> Busy:
    why = Reason(
        code="request.refused", text=f"{request} is refused", numbers={"predicted_wait_s": wait}, rule="deadline"
    )
    return Busy("m is overloaded", retry_after_ms=700, reasons=[to_builtins(why)])


def _add(refusals: Refusals, number: int, error: Busy | OverQuota, *others: str, known: int = 0) -> None:
    about = (f"r{number}", *(others or ("s1", "1000", "m1")))
    answer = error_frames(0, error)[1]
    refused = Refused(10 * number, float(number), "infer", about, answer, known, 0.25, None)
    refusals.add(refused, cause("infer", error))


def _told(records: list[Record]) -> list[tuple[int, str, str]]:
    return [(record.seq, record.about, record.text) for record in records]


def test_a_request_is_known_with_its_reasons_and_numbers() -> None:
    refusals = Refusals(10)
    _add(refusals, 1, _busy())
    why, how = refusals.records("r1")
    text = "infer ended with Busy after 0.250 s: m is overloaded"
    assert _told([why, how]) == [(10, "r1", "r1 is refused"), (11, "r1", text)]
    assert [each.reasons[0].code for each in (why, how)] == ["request.refused"] * 2
    assert why.reasons[0].numbers == {"predicted_wait_s": 3.0}
    assert how.reasons[0].numbers == {"after_s": 0.25, "retry_after_ms": 700}
    assert {(each.at, each.unit, each.level) for each in (why, how)} == {(1.0, "request", "debug")}
    assert why.fields == {"also": ["s1", "1000", "m1"]}
    assert refusals.records("r2") == []


def test_what_was_decided_before_is_not_told_again() -> None:
    refusals = Refusals(10)
    _add(refusals, 1, _busy(), known=1)
    assert [record.seq for record in refusals.records("r1")] == [10] and "ended with" in refusals.records("r1")[0].text


def test_for_all_else_those_of_one_cause_are_one_decision_with_their_number() -> None:
    refusals = Refusals(10)
    _add(refusals, 1, _busy("r1"))
    for about in ("s1", "1000", "m1"):
        assert _told(refusals.records(about)) == _told(refusals.records("r1")), "one stands for itself"
    for number in (2, 3):
        _add(refusals, number, _busy(f"r{number}", wait=number))
    for about in ("s1", "1000", "m1"):
        why, how = refusals.records(about)
        assert (why.seq, why.text, why.reasons[0].numbers) == (30, "r3 is refused", {"predicted_wait_s": 3})
        assert how.text.endswith("; it is the newest of 3 refused for this within 2.0 s")
        assert how.reasons[0].numbers == {"after_s": 0.25, "retry_after_ms": 700, "refused": 3, "within_s": 2.0}
    assert refusals.records("r1")[1].reasons[0].numbers == {"after_s": 0.25, "retry_after_ms": 700}


@pytest.mark.parametrize(
    ("session", "error"),
    [
        ("s2", _busy()),
        ("s1", Busy("full", retry_after_ms=1)),
        ("s1", OverQuota("used up", what="tokens_per_minute", limit=7)),
    ],
    ids=["session", "rule", "error"],
)
def test_another_cause_is_another_decision(session: str, error: Busy | OverQuota) -> None:
    refusals = Refusals(10)
    _add(refusals, 1, _busy())
    _add(refusals, 2, error, session, "1000", "m1")
    assert [record.about for record in refusals.records("m1")] == ["r1", "r1", *["r2"] * (len(error.reasons) + 1)]
    assert not any("newest" in record.text for record in refusals.records("m1"))


def test_limits_of_another_name_are_another_cause() -> None:
    refusals = Refusals(10)
    for number, what in enumerate(("tokens_per_minute", "requests_per_minute", "tokens_per_minute")):
        _add(refusals, number, OverQuota("used up", what=what, limit=7))
    first, second = refusals.records("m1")
    assert (first.about, second.about) == ("r1", "r2") and second.reasons[0].numbers["refused"] == 2


def test_the_newest_are_kept() -> None:
    refusals = Refusals(2)
    for number in range(4):
        _add(refusals, number, _busy(), f"s{number}")
    assert [bool(refusals.records(f"r{number}")) for number in range(4)] == [False, False, True, True]
    assert refusals.records("s0"), "causes have a bound of their own"
    assert [each.at for each in refusals.since(3.0)] == [3.0] and len(refusals.since(0.0)) == 2
    _add(refusals, 4, _busy(), "s0")
    for number in range(5, 4 + CAUSES):
        _add(refusals, number, _busy(), f"s{number}")
    assert refusals.records("s0") and not refusals.records("s1"), "what was met last stays"


def test_the_unit_is_the_first_part_of_a_code() -> None:
    assert unit_of(Reason(code="quota.over", text="")) == "quota"

"""Reports for people and programs."""

from __future__ import annotations

import pytest
from llmos.drivers.conformance.report import Finding, Report, Verdict

GOOD = Finding("facts: a name", Verdict.HOLDS)
ABSENT = Finding("sleep", Verdict.ABSENT, "not implemented")
BAD = Finding("load", Verdict.FAILS, "no progress")
UNKNOWN = Finding("stop", Verdict.UNKNOWN, "the process ended")


@pytest.mark.parametrize(
    ("findings", "holds"),
    [([GOOD], True), ([GOOD, ABSENT], True), ([GOOD, BAD], False), ([UNKNOWN], False), ([], True)],
)
def test_what_is_absent_is_no_failure(findings: list[Finding], holds: bool) -> None:
    assert Report("d0", "device", findings).holds is holds


def test_the_table_names_what_fails_and_why() -> None:
    assert Report("d0", "device", [GOOD, ABSENT, BAD]).table().splitlines() == [
        "d0 (device)",
        "  holds        facts: a name",
        "  not offered  sleep",
        "               not implemented",
        "  FAILS        load",
        "               no progress",
        "----------------------------",
        "1 holds, 1 FAILS, 1 not offered",
    ]


def test_a_driver_that_was_never_there() -> None:
    assert Report("d0", "", [BAD]).table().splitlines()[0] == "d0 (not loaded)"


def test_the_same_for_programs() -> None:
    assert Report("d0", "device", [BAD]).to_dict() == {
        "driver": "d0",
        "kind": "device",
        "holds": False,
        "checks": [{"check": "load", "verdict": "FAILS", "text": "no progress"}],
    }

"""What was decided is found by each id that it is about, bounded, and after the kernel has restarted."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.advice.codes import CODES
from llmos.kernel.advice.decisions import Decisions
from llmos.kernel.journal import MAX_TEXT, Journal
from llmos.syscalls.errors import Busy, OverQuota
from llmos.syscalls.types import Reason
from llmos.syscalls.wire import error_frames


def wall() -> float:
    return 7.0


def _decisions(ids: int = 10, each: int = 4, path: Path | None = None, ring: int = 100) -> Decisions:
    return Decisions(Journal(ring, path, wall), wall, ids, each)


def _reason(text: str = "why", code: str = "model.evicted", **given: object) -> Reason:
    return Reason(code=code, text=text, **given)  # type: ignore[arg-type]


def _refuse(decisions: Decisions, error: Busy | OverQuota, *about: str) -> None:
    decisions.refused("infer", about, error, error_frames(0, error)[1], 0.0)


def test_a_decision_gets_its_time_and_what_would_change_it() -> None:
    decisions = _decisions()
    kept = decisions.decide(["m1", "cpu0"], _reason())
    assert kept == _reason(at=7.0, change=CODES["model.evicted"].change)
    own = _reason(at=1.0, change="free 3 GiB")
    assert decisions.decide(["m1"], own) is own
    assert decisions.of("m1") == [kept, own] and decisions.of("cpu0") == [kept] and decisions.of("m2") == []


def test_it_is_found_by_each_id_in_the_journal_too(folder: Path) -> None:
    decisions = _decisions(path=folder / "j.db", ring=16)
    kept = decisions.decide(["m1", "cpu0"], _reason(), "warning")
    journal = decisions._journal
    for about in ("m1", "cpu0"):
        assert [r.reasons for r in journal.read(about=about)] == [[kept]]
        assert decisions.read(about=about) == journal.read(about=about)
    record = journal.read()[0]
    assert (record.unit, record.level, record.about, record.fields) == ("model", "warning", "m1", {"also": ["cpu0"]})
    journal.close()
    again = Journal(16, folder / "j.db", wall)
    assert [r.reasons for r in again.read(about="cpu0")] == [[kept]] and again.read(about="cpu1") == []
    again.close()


def test_what_every_request_decides_stays_out_of_the_journal() -> None:
    decisions = _decisions()
    decisions.decide(["r1", "m1"], _reason("first"), "debug")
    decisions.decide(["m1"], _reason("second"))
    assert [r.text for r in decisions._journal.read()] == ["second"]
    assert [r.text for r in decisions.read(about="m1")] == ["first", "second"]
    assert [r.text for r in decisions.read(about="r1")] == ["first"]
    assert [r.text for r in decisions.read(about="m1", after=-1, limit=1)] == ["second"]
    assert [r.text for r in decisions.read(about="m1", after=0, limit=1)] == ["first"]
    assert [r.text for r in decisions.read(about="m1", after=1)] == ["second"]
    assert [r.text for r in decisions.read(about="m1", level="info")] == ["second"]
    assert [r.text for r in decisions.read()] == ["second"]


def test_what_the_journal_is_told_with_a_reason_is_a_decision_too() -> None:
    decisions = _decisions()
    decisions._journal.write("model", "info", "fox sleeps", "m1", [_reason()], ["cpu0"])
    decisions._journal.write("model", "info", "fox is loaded", "m1")
    kept = _reason(at=7.0, change=CODES["model.evicted"].change)
    assert decisions.of("m1") == decisions.of("cpu0") == [kept]
    decisions._journal.write("model", "info", "fox sleeps, as was said", "m1", [_reason()], ["cpu0"])
    (found,) = decisions.recent("model.evicted", since=7.0)
    assert found == (["m1", "cpu0"], _reason()) and decisions.recent("model.evicted", since=7.1) == []
    assert decisions.read(about="m1")[0].reasons[0].change == CODES["model.evicted"].change


def test_what_is_noted_gets_its_time_and_its_change_when_it_is_read() -> None:
    decisions = _decisions()
    decisions.note(["r1", "s1"], _reason(), see=["m1"])
    kept = _reason(at=7.0, change=CODES["model.evicted"].change)
    assert decisions.of("r1") == decisions.of("s1") == [kept] and decisions._journal.read() == []
    (record,) = decisions.read(about="s1")
    assert (record.reasons, record.level, record.fields) == ([kept], "debug", {"also": ["s1"], "see": ["m1"]})


def test_a_decision_says_what_explains_it() -> None:
    decisions = _decisions()
    decisions.decide(["r1"], _reason("a"), "debug", see=["m1"])
    decisions.decide(["r1", "s1"], _reason("b"), see=["m1"])
    fields = [record.fields for record in decisions.read(about="r1")]
    assert fields == [{"see": ["m1"]}, {"see": ["m1"], "also": ["s1"]}] and decisions.of("m1") == []


def test_a_flood_of_refusals_pushes_out_nothing_else() -> None:
    decisions = _decisions(ids=4, each=2)
    told = decisions.decide(["m1", "s1"], _reason("made room"), "debug")
    last = decisions._journal.last
    for number in range(10):
        _refuse(decisions, Busy("full", retry_after_ms=5), f"r{number}", "s1", "1000", "m1")
    assert decisions.of("m1")[0] == told and "newest of 10" in decisions.of("m1")[1].text
    assert decisions.of("1000") == decisions.of("s1")[1:] == decisions.of("m1")[1:]
    (refused,) = decisions.of("r9")
    assert (refused.rule, refused.at, refused.change) == ("Busy", 7.0, CODES["request.refused"].change)
    assert decisions.of("r5") == [] != decisions.of("r6"), "as many requests are known as ids"
    assert [record.seq for record in decisions.read(about="r9")] == [last + 10] and decisions.read() == []
    assert [record.text for record in decisions.read(about="m1")] == [reason.text for reason in decisions.of("m1")]
    assert [each.about[0] for each in decisions.refused_since(7.0)] == ["r6", "r7", "r8", "r9"]
    assert decisions.refused_since(7.1) == []


def test_a_refusal_takes_a_number_for_each_of_its_reasons() -> None:
    decisions = _decisions()
    why = {"code": "quota.over", "text": "used up", "numbers": {"limit": 7}, "rule": "tokens_per_minute"}
    error = OverQuota("used up", what="tokens_per_minute", limit=7, reasons=[why])
    _refuse(decisions, error, "r1", "s1")
    assert [each.quota for each in decisions.refused_since(0.0)] == [("tokens_per_minute", 7)]
    decisions.note(["s1"], _reason())
    assert [record.seq for record in decisions.read(about="s1")] == [1, 2, 3]
    assert [reason.code for reason in decisions.of("s1")] == ["quota.over", "request.refused", "model.evicted"]


def test_what_no_reader_would_take_is_stored_as_text() -> None:
    decisions = _decisions()
    decisions.decide(["r0"], _reason("\udcff" + "x" * 10**6, numbers={"huge": 2**80}), "debug")
    kept = decisions._by_id["r0"][0]
    assert len(kept.text) < MAX_TEXT * 2 and len(kept.reasons[0].text) < MAX_TEXT * 2
    decisions.decide(["r1"], _reason("\udcff"), "debug")
    assert decisions.read(about="r1")[0].text == "\\udcff"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(("debug", "info"))), max_size=60))
def test_it_keeps_the_newest_of_the_ids_that_were_spoken_of_last(said: list[tuple[str, str]]) -> None:
    decisions = _decisions(ids=3, each=2)
    for number, (id, level) in enumerate(said):
        decisions.decide([id], _reason(str(number)), level)
    recent = list(dict.fromkeys(id for id, _ in reversed(said)))[:3]
    for id in "abcdef":
        mine = [str(number) for number, (each, _) in enumerate(said) if each == id][-2:]
        kept = [reason.text for reason in decisions.of(id)]
        assert kept == mine[len(mine) - len(kept) :] and bool(kept) == (id in recent)  # it may have left and come back

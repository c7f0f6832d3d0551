"""Alerts of a kernel: from its own figures to the journal, a command, a webhook; the loop never waits."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import Inside, inside
from watching import Loop

from llmos.kernel import alarms
from llmos.kernel.alert_rules import parse

HANDLES = '[[alerts]]\nname = "crowd"\nmetric = "llmos_sessions"\nabove = 2\nclear = 1\nfor_s = 2\n'


@pytest.fixture
def crowd(folder: Path) -> Iterator[Inside]:
    with inside(folder, HANDLES + 'severity = "error"\n') as kernel:
        yield kernel


def _ticks(kernel: Inside, count: int) -> None:
    for _ in range(count):
        kernel.advance(1.0)


def _told(kernel: Inside, code: str) -> list[Any]:
    return [r for record in kernel.kernel.journal.read(limit=1000) for r in record.reasons if r.code == code]


def test_an_alert_is_raised_shown_and_cleared_with_the_numbers_of_its_metric(crowd: Inside) -> None:
    kernel = crowd.kernel
    programs = [crowd.program() for _ in range(3)]
    _ticks(crowd, 2)
    assert kernel.alarms.raised() == [] and not _told(crowd, "alert.raised")
    _ticks(crowd, 2)
    (alert,) = kernel.alarms.raised()
    assert (alert.rule, alert.about, alert.severity, alert.value, alert.limit) == ("crowd", "", "error", 3, 2)
    assert json.loads(programs[0].read("/sys/alerts"))[0]["value"] == 3
    (reason,) = _told(crowd, "alert.raised")
    assert reason.numbers == {"value": 3, "limit": 2, "clear": 1, "for_s": 2} and reason.rule == "crowd"
    assert "llmos_sessions: 3, alarming when above 2" in reason.text
    for about in ("system", "crowd"):
        assert kernel.decisions.of(about)[-1] == reason
    for program in programs[:2]:
        crowd.kernel.sessions.close(crowd.session(program), "test")
    _ticks(crowd, 1)
    assert kernel.alarms.raised() == [] and _told(crowd, "alert.cleared")[0].numbers["value"] == 1


def test_shares_and_times_are_told_with_their_units(folder: Path) -> None:
    rule = '[[alerts]]\nname = "{0}"\nmetric = "{0}"\nabove = -0.5\n'
    with inside(folder, rule.format("memory") + rule.format("queue")) as kernel:
        _ticks(kernel, 1)
        texts = {alert.text for alert in kernel.kernel.alarms.raised()}
        assert {"memory of null0: 0 %, alarming when above -50 %", "queue: 0 s, alarming when above -0.5 s"} <= texts


def test_a_model_is_named_by_its_id_and_its_going_clears(folder: Path) -> None:
    settings = '[[alerts]]\nname = "kv"\nmetric = "llmos_num_requests_waiting"\nbelow = 1\n'
    with inside(folder, settings, drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        _ticks(kernel, 1)
        (found,) = kernel.kernel.models.by_id
        assert _told(kernel, "alert.raised")[0] in kernel.kernel.decisions.of(found)
        program.call("unload_model", model=model)
        _ticks(kernel, 1)
        assert _told(kernel, "alert.cleared")[0].text.endswith("nothing is known of it now")


def test_drift_looks_at_the_ledger(folder: Path) -> None:
    settings = '[[alerts]]\nname = "drift"\nmetric = "drift"\nabove = 0.05\n'
    with inside(folder, settings, drivers="null0,models") as kernel:
        program = kernel.program()
        program.load("tiny")
        rows = kernel.kernel.ledger.rows("null0")
        (owner,) = {row.owner for row in rows if row.what == "weights"}
        place = kernel.kernel.ledger._device("null0").rows[owner, "weights"]
        place.allocator = 2 * (place.admitted or 0)
        _ticks(kernel, 1)
        (alert,) = kernel.kernel.alarms.raised()
        assert (alert.about, alert.value) == ("tiny", 1.0)


def test_rules_are_read_again(crowd: Inside) -> None:
    kernel = crowd.kernel
    for _ in range(3):
        crowd.program()
    _ticks(crowd, 4)
    kernel.alarms.reload(parse([{"name": "other", "metric": "llmos_sessions", "above": 9}]))
    assert kernel.alarms.raised() == []
    kernel.alarms.reload(())
    _ticks(crowd, 1)
    assert kernel.alarms.raised() == []


# ---- sending, with real processes


@pytest.fixture
def sending(folder: Path) -> Iterator[tuple[Inside, Path]]:
    loop = Loop()
    with inside(folder, loop=loop, drivers="models") as kernel:
        yield kernel, folder
    loop.close()


def _rule(**given: Any) -> Any:
    return parse([{"name": "hot", "metric": "queue", "above": 1, **given}])[0]


def _message() -> alarms.Message:
    return alarms.Message(
        rule="hot", state="raised", about="x", severity="error", text="t", value=2, limit=1, at=3.0
    )


def _warnings(kernel: Inside) -> list[str]:
    return [record.text for record in kernel.kernel.journal.read(level="warning")]


def test_a_command_gets_the_alert_without_a_shell(sending: tuple[Inside, Path]) -> None:
    kernel, folder = sending
    out = folder / "a b; $HOME"
    write = "import os, sys; open(sys.argv[1], 'w').write(os.environ['LLMOS_ALERT'])"
    kernel.kernel.alarms.sender.send(_rule(command=[sys.executable, "-c", write, str(out)]), _message())
    sender = kernel.kernel.alarms.sender
    assert kernel.loop is not None
    kernel.loop.until(lambda: not sender._running)
    assert json.loads(out.read_text()) == {
        "rule": "hot", "state": "raised", "about": "x", "severity": "error", "text": "t", "value": 2.0, "limit": 1.0,
        "at": 3.0,
    }  # fmt: skip
    assert _warnings(kernel) == []


def test_what_does_not_arrive_is_journaled(sending: tuple[Inside, Path]) -> None:
    kernel, _ = sending
    sender, loop = kernel.kernel.alarms.sender, kernel.loop
    assert loop is not None
    sender.send(_rule(command=["/none/there"]), _message())
    sender.send(_rule(command=[sys.executable, "-c", "print('no mail'); exit(3)"]), _message())
    sender.send(_rule(webhook="http://127.0.0.1:1/secret", timeout_s=0.1), _message())
    loop.until(lambda: not sender._running)
    missing, *said = _warnings(kernel)
    assert "did not reach /none/there" in missing
    assert any(text.endswith("exit status 3; no mail") for text in said)
    assert any("its webhook: exit status 1; ConnectionRefusedError" in text for text in said)
    assert not any("secret" in text for text in said)


def test_a_command_that_hangs_is_ended(sending: tuple[Inside, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _ = sending
    sender, loop = kernel.kernel.alarms.sender, kernel.loop
    assert loop is not None
    rule = _rule(command=["sleep", "600"], timeout_s=0.01)
    sender.send(rule, _message())
    (timer,) = sender._running.values()
    timer.cancel()
    (child,) = sender._running
    child.terminate()
    loop.until(lambda: not sender._running)
    assert "killed by SIGTERM" in _warnings(kernel)[0]


def test_few_run_at_once_and_what_cannot_wait_is_said(
    sending: tuple[Inside, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, _ = sending
    sender, loop = kernel.kernel.alarms.sender, kernel.loop
    assert loop is not None
    monkeypatch.setattr(alarms, "AT_ONCE", 1)
    monkeypatch.setattr(alarms, "MOST_WAITING", 2)
    for _ in range(4):
        sender.send(_rule(command=["true"]), _message())
    assert len(sender._running) == 1 and len(sender._waiting) == 2
    assert _warnings(kernel) == ["the alert hot is not sent to true: 2 wait already"]
    loop.until(lambda: not sender._running and not sender._waiting)
    sender.send(_rule(command=["sleep", "600"]), _message())
    sender.kill_now()
    assert not sender._running

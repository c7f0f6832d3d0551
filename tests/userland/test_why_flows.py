"""Why: what is asked, and how reasons and records become one list by time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llmos.syscalls.errors import NotFound
from llmos.syscalls.types import Data, File, Handle, ObjectInfo, Reason, Record
from llmos.userland.client import Client
from llmos.userland.objects import System
from llmos.userland.why_flows import told_once


@pytest.fixture
def scripted(fake: Any) -> Any:
    with System(Client(fake.address, patience=0.2)) as system:
        yield system


def _serve(fake: Any, files: dict[str, Any]) -> None:
    """Let the stand-in kernel have these files."""
    opened: dict[int, bytes] = {}

    def open_file(request: Any) -> None:
        path = request.body["path"]
        if path not in files:
            request.fail(NotFound(f"{path} does not exist"))
            return
        opened[7] = msgspec.json.encode(files[path])
        request.reply(File(handle=Handle(7), path=path, bytes=len(opened[7]), version="1"))

    fake.on("open_file", open_file)
    fake.on("read_file", lambda request: request.reply(Data(data=opened[7], eof=True)))


def test_why_joins_what_is_known_now_with_the_journal_and_says_nothing_twice(scripted: Any, fake: Any) -> None:
    reason = Reason(code="evict", text="evicted", at=3.0)
    model = ObjectInfo(id="m-1", kind="model", name="fox", state="awake", reasons=[reason])
    restarted = Reason(code="restart", text="restarted")
    record = Record(seq=1, at=2.0, unit="models", level="info", about="m-1", text="loaded")
    other = Record(seq=2, at=4.0, unit="supervisor", level="info", about="m-1", text="fox was evicted",
                   reasons=[reason, restarted])
    fake.on("list_objects", lambda request: request.reply([model] if request.body["kind"] == "model" else []))
    fake.on("read_journal", lambda request: request.reply([record, other] if request.body["about"] == "m-1" else []))
    told = [(reason.text, reason.at) for reason in scripted.why("fox")]
    assert told == [("loaded", 2.0), ("fox was evicted", 4.0), ("restarted", 4.0)]
    assert told == [(reason.text, reason.at) for reason in scripted.why("m-1")]
    record = Record(seq=1, at=2.0, unit="request", level="debug", about="r-1", text="refused", fields={"also": ["7/x"]})
    fake.on("read_journal", lambda request: request.reply([record] if request.body["about"] == "7/x" else []))
    assert [reason.text for reason in scripted.why("uid:7/x")] == ["refused"]


def test_a_request_is_explained_by_what_was_decided_about_its_model_meanwhile(scripted: Any, fake: Any) -> None:
    def record(seq: int, at: float, about: str, text: str, **fields: Any) -> Record:
        return Record(seq=seq, at=at, unit="u", level="info", about=about, text=text, fields=fields)

    journals = {
        "r-1": [record(2, 10.0, "r-1", "waits", see=["m-1"]), record(5, 20.0, "r-1", "answered")],
        "m-1": [record(1, 9.0, "m-1", "before"), record(3, 15.0, "m-1", "is loaded"), record(6, 21.0, "m-1", "after")],
    }
    fake.on("list_objects", lambda request: request.reply([]))
    fake.on("read_journal", lambda request: request.reply(journals.get(request.body["about"], [])))
    _serve(fake, {})
    assert [reason.text for reason in scripted.why("r-1")] == ["waits", "is loaded", "answered"]
    waits = Reason(code="request.waits", text="number 2 in the queue", numbers={"position": 2}, change="a higher class")
    _serve(fake, {"/proc/requests/r-1": {"reasons": [msgspec.to_builtins(waits)]}})
    assert scripted.why("r-1")[-1] == waits
    assert scripted.why("r-2") == []


def test_what_a_record_says_with_its_reason_is_said_once() -> None:
    reason = Reason(code="c", text="it is so", at=5.0)
    record = Record(seq=3, at=5.0, unit="c", level="debug", about="x", text="it is so", reasons=[reason])
    assert told_once([reason], [record, record]) == [reason]
    assert told_once([reason], []) == [reason]


def test_a_decision_and_what_was_done_by_it_are_one_line_that_says_more() -> None:
    reason = Reason(code="model.evicted", text="it makes room for owl", numbers={"needed": 3}, at=5.0)
    decided = Record(seq=1, at=5.0, unit="model", level="info", about="m", text=reason.text, reasons=[reason])
    done = msgspec.structs.replace(decided, seq=2, at=5.1, text=f"fox is put to sleep: {reason.text}")
    for order in ([decided, done], [done, decided]):
        (line,) = told_once([], order)
        assert (line.text, line.numbers) == (done.text, {"needed": 3})


@pytest.mark.parametrize("name", ["advice", "alerts"])
def test_advice_and_alerts_are_read(scripted: Any, fake: Any, name: str) -> None:
    given = {
        "advice": {"code": "pin", "about": "m-1", "name": "fox", "text": "t", "evidence": {"n": 1}, "gain": {"s": -2}},
        "alerts": {"rule": "r", "about": "", "severity": "error", "text": "t", "value": 2, "limit": 1, "since": 3},
    }
    _serve(fake, {f"/sys/{name}": [given[name]]})
    (found,) = getattr(scripted, name)()
    plain = msgspec.to_builtins(found)
    assert {key: plain[key] for key in given[name]} == given[name]

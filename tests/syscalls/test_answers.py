"""What hosts answer: the same over the wire, with as little as is needed."""

from __future__ import annotations

import msgspec

from llmos.syscalls import answers, driver
from llmos.syscalls.answers import Stats, Tuning
from llmos.syscalls.types import LedgerRow


def test_answers_come_over_the_wire_as_they_were() -> None:
    row = LedgerRow(device="cpu0", what="tuning", owner="t-1", predicted=5)
    plan = Tuning(rows=[row], steps=3, tokens=40, facts={"data_sha256": "ab"})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Tuning) == plan
    assert msgspec.convert({}, Stats) == Stats(memory=[], values={})


def test_the_calls_that_answer_them_are_in_the_same_module() -> None:
    assert driver.Tuning is answers.Tuning and driver.HOST_CALLS["tune"].result is answers.Tuning

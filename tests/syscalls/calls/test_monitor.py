"""Metrics, journal, events."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.spec import SYSCALLS, check

assert calls.__all__


def made(name: str, **arguments: Any) -> Any:
    return check(SYSCALLS[name], arguments)


def refused(name: str, argument: str, **arguments: Any) -> None:
    with pytest.raises(BadArgument) as raised:
        made(name, **arguments)
    assert raised.value.name == argument


def test_the_journal_is_read_forward_or_from_its_end() -> None:
    call = made("read_journal", system=1)
    assert (call.after, call.level, call.limit) == (0, "info", 100)
    assert made("read_journal", system=1, after=-1).after == -1
    refused("read_journal", "after", system=1, after=-2)


@pytest.mark.parametrize("limit", [0, 10_001])
def test_a_page_of_the_journal_is_bounded(limit: int) -> None:
    refused("read_journal", "limit", system=1, limit=limit)


def test_a_level_is_one_of_four() -> None:
    refused("read_journal", "level", system=1, level="trace")


def test_events_of_all_kinds_unless_told_otherwise() -> None:
    call = made("watch_events", system=1)
    assert (call.kinds, call.about, call.credit) == ([], "", 64)
    refused("watch_events", "credit", system=1, credit=0)


def test_the_right_each_handle_needs() -> None:
    needed = {name: SYSCALLS[name].handles[0].rights for name in ("read_metrics", "read_journal", "watch_events")}
    assert needed == {"read_metrics": ("read",), "read_journal": ("read",), "watch_events": ("list",)}

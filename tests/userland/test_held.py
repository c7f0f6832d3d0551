"""Handles of objects: shared, closed, outlived by their session."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.syscalls.errors import BadHandle
from llmos.syscalls.types import Handle, Task
from llmos.userland.held import Opened, Whole


def client(session: str = "s1") -> Any:
    return SimpleNamespace(welcome=SimpleNamespace(session=session, system=Handle(2)), held=Counter(), ended="")


def task(handle: int) -> Task:
    return Task(handle=Handle(handle), id="t-1", kind="program", state="running")


def test_the_last_of_those_who_share_a_handle_closes_it() -> None:
    c = client()
    one, two = Opened(c, task(5)), Opened(c, task(5))
    assert one.handle == two.handle == 5
    assert one.let_go() is None and one.let_go() is None
    assert two.let_go() == 5
    assert not c.held
    with pytest.raises(BadHandle, match="Opened t-1> is closed"):
        _ = two.handle


def test_a_handle_of_an_earlier_session_is_never_used() -> None:
    c = client()
    opened = Opened(c, task(5))
    c.welcome = SimpleNamespace(session="s2", system=Handle(9))
    with pytest.raises(BadHandle, match="belongs to session s1"):
        _ = opened.handle
    assert opened.let_go() is None


def test_nothing_is_closed_when_the_session_is_over() -> None:
    c = client()
    opened = Opened(c, task(5))
    c.ended = "the kernel is gone"
    assert opened.let_go() is None


def test_the_system_goes_with_the_session() -> None:
    c = client()
    whole = Whole(c)
    assert (whole.handle, whole.session) == (2, "s1")
    c.welcome = SimpleNamespace(session="s2", system=Handle(9))
    assert (whole.handle, whole.session) == (9, "s2")
    assert "s2" in repr(whole)

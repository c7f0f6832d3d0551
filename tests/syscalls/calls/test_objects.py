"""What exists, and what can be done with it."""

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


def test_a_kind_is_one_of_the_contract() -> None:
    assert made("list_objects", system=1, kind="model").prefix == ""
    refused("list_objects", "kind", system=1, kind="models")


def test_an_action_and_its_options_are_checked_by_the_kind() -> None:
    call = made("control_object", handle=1, action="alias", options={"name": "production", "version": 3})
    assert call.options == {"name": "production", "version": 3}
    assert SYSCALLS["control_object"].handles[0].rights == ()


def test_reading_the_state_needs_read() -> None:
    assert SYSCALLS["stat_object"].handles[0].rights == ("read",)
    refused("stat_object", "handle", handle="1")

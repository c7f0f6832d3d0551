"""Tasks and programs."""

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


def test_a_program_has_a_name() -> None:
    refused("spawn_program", "argv", system=1, argv=[])
    call = made("spawn_program", system=1, argv=["demo"])
    assert (call.grants, call.mounts, call.limits.handles) == ([], [], 0)


def test_grants_and_mounts_are_checked_in_depth() -> None:
    refused("spawn_program", "grants[0].rights[0]", system=1, argv=["x"], grants=[{"handle": 1, "rights": ["all"]}])
    refused("spawn_program", "mounts[0].path", system=1, argv=["x"], mounts=[{"path": 3}])
    refused("spawn_program", "limits.handels", system=1, argv=["x"], limits={"handels": 3})


def test_a_task_or_a_request_is_cancelled() -> None:
    assert made("cancel_task", task=3).grace_s == 2.0
    assert made("cancel_task", request="r7").task is None
    for grace in (-1, 3601, float("nan")):
        refused("cancel_task", "grace_s", task=3, grace_s=grace)


def test_the_right_each_handle_needs() -> None:
    needed = {name: SYSCALLS[name].handles[0].rights for name in ("spawn_program", "wait_task", "cancel_task")}
    assert needed == {"spawn_program": ("create",), "wait_task": ("wait",), "cancel_task": ("manage",)}

"""Sessions and handles."""

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


def test_hello_names_the_program_and_no_handle() -> None:
    call = made("hello", protocol=1, program="demo")
    assert (call.tenant, call.resume) == ("", None)
    assert SYSCALLS["hello"].handles == ()


@pytest.mark.parametrize("argument", ["program", "tenant"])
def test_names_are_short(argument: str) -> None:
    arguments = {"protocol": 1, "program": "demo", argument: "x" * 201}
    refused("hello", argument, **arguments)


@pytest.mark.parametrize("name", ["dup_handle", "grant_handle"])
def test_rights_are_asked_for_by_name(name: str) -> None:
    session = {"session": "s1"} if name == "grant_handle" else {}
    assert made(name, handle=1, rights=["read", "run", "read"], **session).rights == {"read", "run"}
    refused(name, "rights[1]", handle=1, rights=["read", "everything"], **session)
    refused(name, "rights", handle=1, **session)


def test_the_right_each_call_needs() -> None:
    needed = {name: SYSCALLS[name].handles[0].rights for name in ("close_handle", "dup_handle", "grant_handle")}
    assert needed == {"close_handle": (), "dup_handle": ("dup",), "grant_handle": ("grant",)}
    assert SYSCALLS["revoke_handle"].handles[0].rights == ("grant",)

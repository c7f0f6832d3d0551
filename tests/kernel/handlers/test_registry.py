"""The table of handlers."""

from __future__ import annotations

from llmos.kernel.handlers import HANDLERS
from llmos.syscalls import calls
from llmos.syscalls.spec import SYSCALLS


def test_every_call_but_hello_has_a_handler() -> None:
    assert {spec.cls for spec in SYSCALLS.values()} - set(HANDLERS) == {calls.Hello}

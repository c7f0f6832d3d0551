"""How a check ends that does not simply hold, and small tools to say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from llmos.syscalls.errors import LlmosError, NotSupported
from llmos.syscalls.wire import MessageKind, Reply, pack


class Broken(Exception):
    """The contract is not kept; the text says how."""


class Absent(Exception):
    """An optional part that the driver does not offer."""


def expect(condition: bool, text: str) -> None:
    """Raises Broken with `text` unless the condition holds."""
    if not condition:
        raise Broken(text)


def expect_error(what: str, action: Callable[[], object], *allowed: type[LlmosError]) -> LlmosError:
    """The typed error that an action must end with.

    Raises:
        Broken: it succeeded, or the error is none of those allowed.
    """
    wanted = " or ".join(error.__name__ for error in allowed)
    try:
        action()
    except LlmosError as error:
        expect(isinstance(error, allowed), f"{what}: expected {wanted}, got {type(error).__name__}: {error}")
        return error
    raise Broken(f"{what}: expected {wanted}, but it was accepted")


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Turns NotSupported into Absent."""
    try:
        yield
    except NotSupported as error:
        raise Absent(f"{what}: {error}") from error


def expect_sendable(what: str, value: Any) -> None:
    """Raises Broken when a value holds other than plain Python types, which is all that a message can carry."""
    try:
        pack(MessageKind.REPLY, 1, "", Reply(value=value))
        msgspec.convert(msgspec.to_builtins(value, builtin_types=(bytes,)), type(value))
    except (LlmosError, msgspec.ValidationError) as error:
        raise Broken(f"{what} holds something that cannot be sent: {error}") from error

"""Tuning."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.errors import NotSupported

from ..requests import Request
from .registry import implements


@implements(calls.Tune)
def tune(request: Request, call: calls.Tune) -> None:
    raise NotSupported(f"tune: the method {call.recipe.method!r} is not offered yet", why="no driver announces tuning")

"""Tuning."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.types import Task

from ..requests import Request
from .registry import implements


@implements(calls.Tune)
async def tune(request: Request, call: calls.Tune) -> Task:
    return await request.kernel.tunes.start(request, call)

"""Work of several calls, written once for the sync and the async client.

A flow is a generator that yields calls and is sent their results; the client that runs it does the waiting. An error of
a call is raised inside the flow, at its `yield`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from llmos.syscalls.spec import Call
from llmos.syscalls.wire import Progress

R = TypeVar("R")

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a flow."""

    call: Call[Any]
    on_progress: OnProgress | None = None


Flow = Generator[Step, Any, R]


def ask(call: Call[R], on_progress: OnProgress | None = None) -> Flow[R]:
    """Make one call: `answer = yield from ask(StatPath(path="/models"))`."""
    answer: R = yield Step(call, on_progress)
    return answer

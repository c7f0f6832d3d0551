"""What a task of models that write with `generate` is made of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...contract import Request, TaskResult


@dataclass(frozen=True)
class Draft:
    """A request, prepared. Drafts with an equal `group` may be written together.

    `content` is the task's own; `length` is what padding may extend; `tokens` is what the request reads; `prompt` are
    the ids that the answer continues, none when it is a text of its own; `room`: how many tokens it may have;
    `settings` are fields of the generation configuration.
    """

    request: Request
    content: Any
    length: int
    tokens: int
    room: int
    prompt: Sequence[int] = ()
    group: Hashable = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ending:
    """A whole answer that the library has written."""

    tokens: Sequence[int]
    text: str
    reason: str
    result: TaskResult | None = None


class WritingTask(Protocol):
    """Tasks of one model. `chooses`: tokens are chosen by the request's sampling, one after the other; otherwise the
    library's own procedure makes the whole answer, greedily or with beams, and `endings` reads it."""

    tasks: Mapping[str, Mapping[str, str]]
    """Their names, with the options of each."""
    chooses: bool

    def prepare(self, request: Request) -> Draft:
        """Raises BadArgument, TooLarge, NotSupported."""

    def inputs(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        """Arguments of `generate` for some drafts of one group."""

    def endings(self, drafts: Sequence[Draft], made: Any) -> Sequence[Ending]:
        """The answers in what `generate` returned."""

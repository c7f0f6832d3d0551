"""What the work thread has to say, collected so that one wake-up of the I/O thread sends it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llmos.syscalls.driver import Beat, HostEvent
from llmos.syscalls.errors import BadArgument, DeviceFault, LlmosError, TooLarge
from llmos.syscalls.types import Chunk
from llmos.syscalls.wire import MessageKind, Progress, Reply, error_frames, pack


class Outgoing:
    """Messages in the order in which they were said; `flush` sends them."""

    def __init__(self, post: Callable[[Iterable[Sequence[bytes]]], None]) -> None:
        self._post = post
        self._waiting: list[Sequence[bytes]] = []

    def reply(self, number: int, value: Any) -> None:
        """The terminal answer of a call that does not stream."""
        self._answer(MessageKind.REPLY, number, value)

    def end(self, number: int, value: Any) -> None:
        """The terminal answer of a call that streams."""
        self._answer(MessageKind.END, number, value)

    def error(self, number: int, error: LlmosError) -> None:
        """The terminal answer of a call that failed."""
        self._waiting.append(error_frames(number, error))

    def chunks(self, items: Sequence[tuple[int, Chunk]]) -> None:
        """Pieces of several requests in one message."""
        self._waiting.append(pack(MessageKind.CHUNK, 0, "", {"items": items}))

    def progress(self, number: int, progress: Progress) -> None:
        self._waiting.append(pack(MessageKind.PROGRESS, number, "", progress))

    def event(self, event: HostEvent) -> None:
        if isinstance(event, Beat):
            self._waiting.append(pack(MessageKind.BEAT, 0, "", event))
        else:
            self._waiting.append(pack(MessageKind.EVENT, 0, str(event.__struct_config__.tag), event))

    def flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._post(waiting)

    def _answer(self, kind: MessageKind, number: int, value: Any) -> None:
        try:
            self._waiting.append(pack(kind, number, "", Reply(value=value)))
        except TooLarge as error:
            self.error(number, error)
        except BadArgument as error:
            self.error(number, DeviceFault(f"the driver's answer is not plain data: {error}", cause=str(error)))

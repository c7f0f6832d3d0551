"""Ctrl-C while a message is under way: noted, not raised, so that no answer is lost half-read."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class HeldInterrupt:
    """Counts SIGINT instead of raising KeyboardInterrupt, where Python's own handler is the one in place.

    Elsewhere (other threads, programs with a handler of their own) it does nothing.

    Args:
        wake: called from the signal handler, to end a wait in C code.
        count: interrupts that were raised before.
        waking: a non-blocking descriptor whose other end that wait watches. A signal that comes just before the wait
            writes to it at once; its handler, which is Python code, would run only after the wait.
    """

    def __init__(self, wake: Callable[[], None], count: int = 0, waking: int = -1) -> None:
        self.count = count
        self._wake = wake
        self._waking = waking
        self._holding = False

    def __enter__(self) -> HeldInterrupt:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._holding = True
            signal.signal(signal.SIGINT, self._note)
            try:
                before = signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
            except OSError:  # another thread has closed it: there is no wait left to be ended
                before = self._waking = -1
            if before >= 0:  # an event loop's, which tells its own signals by it
                signal.set_wakeup_fd(before)
                self._waking = -1
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._wake()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holding:
            if self._waking >= 0:
                signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._holding = False

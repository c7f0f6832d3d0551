"""Several connections at a time, and an end of all of them when one fails or the job is told to end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

CONNECTIONS = 4

T = TypeVar("T")


def on_connections(items: Iterable[T], work: Callable[[T, threading.Event], None]) -> None:
    """Work on all items, `CONNECTIONS` of them at a time; the event is set when nobody wants the rest any more.

    Raises: what the first item that failed raised. A job that is told to end (SystemExit) does not wait for the others.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(CONNECTIONS, "connection")
    running = [pool.submit(work, item, stop) for item in items]
    try:
        for future in running:
            future.result()
    finally:
        stop.set()
        asked_to_end = isinstance(sys.exc_info()[1], SystemExit)
        pool.shutdown(wait=not asked_to_end, cancel_futures=True)

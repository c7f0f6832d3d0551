"""One busy client of the throughput bench: calls the kernel with many requests in flight; prints calls a second.

Waits for a line on standard input before it starts, so that all clients start together.
"""

from __future__ import annotations

import sys
import time
from collections import deque

from llmos.syscalls.calls import StatObject
from llmos.userland.client import Client


def rate(client: Client, calls: int, window: int) -> float:
    """Calls a second with `window` of them in flight."""
    request = StatObject(handle=client.welcome.system)
    flying = deque(client.submit(request) for _ in range(window))
    began = time.perf_counter()
    for _ in range(calls):
        flying.popleft().result()
        flying.append(client.submit(request))
    seconds = time.perf_counter() - began
    for answer in flying:
        answer.result()
    return calls / seconds


def main(address: str, calls: int, window: int) -> None:
    with Client(address) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        print(rate(client, calls, window), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""Sends one alert to a URL: a process of its own, so that a slow server never holds up the kernel.

    LLMOS_WEBHOOK=URL LLMOS_ALERT=JSON python -m llmos.kernel.advice.webhook SECONDS

Three tries within the seconds. Redirects are not followed: the alert goes where the configuration says. Exit status 0
when it was taken (2xx), 1 with a line that says why not. The URL, which may hold a secret, is never printed.
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from urllib.parse import urlsplit

TRIES = 3
PAUSE_S = 0.5


def send(url: str, body: bytes, timeout_s: float) -> str:
    """POST once; empty when it was taken, else what went wrong."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    opened = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"content-type": "application/json", "user-agent": "llmos"}
    try:
        with closing(opened(parts.hostname or "", parts.port, timeout=timeout_s)) as connection:
            connection.request("POST", target, body, headers)
            answer = connection.getresponse()
            answer.read(1024)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if 200 <= answer.status < 300 else f"it answered {answer.status} {answer.reason}"


def deliver(
    url: str, body: bytes, timeout_s: float, clock: Callable[[], float], sleep: Callable[[float], object]
) -> str:
    """Try some times within the seconds; empty when it was taken."""
    until, said = clock() + timeout_s, ""
    for attempt in range(TRIES):
        left = until - clock()
        if left <= 0:
            break
        said = send(url, body, left / (TRIES - attempt))
        if not said:
            return ""
        sleep(min(PAUSE_S * 2**attempt, max(0.0, until - clock())))
    return said


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """The whole program."""
    body = environ["LLMOS_ALERT"].encode()
    said = deliver(environ["LLMOS_WEBHOOK"], body, float(arguments[0]), time.monotonic, time.sleep)
    if said:
        sys.stdout.write(f"{said}\n")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))

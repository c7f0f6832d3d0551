"""What somebody should look at, from the state of the system and its counters. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmos.syscalls.types import Alert, ObjectInfo

from .rates import REQUESTS, Reading, above, buckets, total

LOW_SHARE = 0.05
QUEUE_S = 10.0
ERROR_SHARE = 0.05
FEWEST_REQUESTS = 20
"""Of fewer requests in a minute the share of errors says nothing."""
LAG_S = 0.1
_TROUBLES = {
    "failed": ("error", "has failed and is not started again by itself"),
    "backoff": ("warning", "has ended and will be started again"),
    "suspect": ("warning", "does not answer; it is watched"),
}
"""State of a driver -> how bad it is and what is said."""


def alert(level: str, about: str, what: str, text: str) -> dict[str, str]:
    """One alert; its id stays the same as long as it lasts."""
    return {"id": f"{what}:{about}", "level": level, "about": about, "text": text}


def of_drivers(drivers: Iterable[ObjectInfo]) -> list[dict[str, str]]:
    """Drivers that have failed, restart, or do not answer."""
    found = []
    for driver in drivers:
        trouble = _TROUBLES.get(driver.state)
        if trouble is not None:
            level, said = trouble
            cause = driver.fields.get("cause", "")
            text = f"the driver {driver.name} {said}" + (f": {cause}" if cause else "")
            found.append(alert(level, driver.name, "driver", text))
    return found


def of_devices(devices: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Devices that are nearly full."""
    found = []
    for device in devices:
        size, free = device["total"], device["free"]
        if size and free < LOW_SHARE * size:
            text = f"{device['name']} has {100 * free / size:.1f} % of its bytes free"
            found.append(alert("warning", device["name"], "memory", text))
    return found


def of_traffic(now: Reading, before: Reading, minute: Reading) -> list[dict[str, str]]:
    """A queue that stands, many errors, a slow loop.

    Args:
        before: the reading before this one.
        minute: one of about a minute ago.
    """
    found = []
    oldest = total(now, "llmos_queue_oldest_seconds")
    if oldest > QUEUE_S:
        found.append(alert("warning", "", "queue", f"a request has been waiting for {oldest:.0f} s"))
    requests = total(now, "llmos_calls_total", call=REQUESTS) - total(minute, "llmos_calls_total", call=REQUESTS)
    errors = total(now, "llmos_errors_total", call=REQUESTS) - total(minute, "llmos_errors_total", call=REQUESTS)
    if requests >= FEWEST_REQUESTS and errors > ERROR_SHARE * requests:
        share = 100 * errors / requests
        text = f"{share:.0f} % of the {requests:.0f} requests of the last minute ended with an error"
        found.append(alert("error", "", "errors", text))
    name = "llmos_loop_lag_seconds"
    if late := above(LAG_S, buckets(before, name), buckets(now, name)):
        text = f"the kernel's loop took longer than {LAG_S:g} s for one turn, {late} times in the last second"
        found.append(alert("warning", "", "lag", text))
    return found


def of_gateway(draining: bool) -> list[dict[str, str]]:
    """The gateway itself."""
    return [alert("warning", "gateway", "draining", "the gateway is stopping")] if draining else []


def of_rules(raised: Iterable[Alert]) -> list[dict[str, str]]:
    """Those that the rules of the kernel's configuration have raised."""
    return [alert(each.severity, each.about, f"rule {each.rule}", f"{each.rule}: {each.text}") for each in raised]

"""What somebody should look at."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.syscalls.types import Metric, ObjectInfo
from llmos.userland.gateway.native import alerts


def driver(state: str, **fields: Any) -> ObjectInfo:
    return ObjectInfo(id="d-1", kind="driver", name="cpu0", state=state, fields=fields)


@pytest.mark.parametrize(
    ("state", "level"),
    [("ready", None), ("starting", None), ("stopped", None), ("failed", "error"), ("backoff", "warning"),
     ("suspect", "warning")],
)  # fmt: skip
def test_a_driver_in_trouble(state: str, level: str | None) -> None:
    found = alerts.of_drivers([driver(state, cause="killed by signal 9")])
    assert [each["level"] for each in found] == ([level] if level else [])
    assert all("cpu0" in each["text"] and "signal 9" in each["text"] and each["about"] == "cpu0" for each in found)


def test_a_device_that_is_nearly_full() -> None:
    def device(total: int, free: int) -> dict[str, Any]:
        return {"name": "cpu0", "total": total, "free": free}

    assert alerts.of_devices([device(1000, 50), device(0, 0)]) == []
    (found,) = alerts.of_devices([device(1000, 49)])
    assert found == {
        "id": "memory:cpu0",
        "level": "warning",
        "about": "cpu0",
        "text": "cpu0 has 4.9 % of its bytes free",
    }


def reading(requests: int = 0, errors: int = 0, oldest: float = 0.0, late: int = 0) -> dict[str, Metric]:
    def counter(value: float, **labels: str) -> Metric:
        return Metric(kind="counter", value=value, labels=labels)

    return {
        'llmos_calls_total{call="infer"}': counter(requests, call="infer"),
        'llmos_errors_total{call="infer",error="Busy"}': counter(errors, call="infer", error="Busy"),
        'llmos_errors_total{call="stat_path",error="NotFound"}': counter(500, call="stat_path", error="NotFound"),
        "llmos_queue_oldest_seconds": counter(oldest),
        "llmos_loop_lag_seconds": Metric(
            kind="histogram", value=0, buckets={"0.1": 5, "0.3": 5 + late, "+Inf": 5 + late}
        ),
    }


def test_a_quiet_system_has_no_alerts() -> None:
    assert alerts.of_traffic(reading(100, 5, 10.0), reading(), reading()) == []
    assert alerts.of_traffic(reading(19, 19), reading(), reading()) == []
    assert alerts.of_traffic({}, {}, {}) == [] and alerts.of_gateway(False) == []


def test_errors_a_standing_queue_a_slow_loop_and_the_end() -> None:
    def only(**now: Any) -> dict[str, str]:
        (found,) = alerts.of_traffic(reading(**now), reading(), reading())
        return found

    assert only(requests=100, errors=6)["text"] == "6 % of the 100 requests of the last minute ended with an error"
    assert only(oldest=12.2)["text"] == "a request has been waiting for 12 s"
    assert "2 times" in only(late=2)["text"]
    assert alerts.of_gateway(True)[0]["id"] == "draining:gateway"

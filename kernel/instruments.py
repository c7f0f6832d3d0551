"""The metrics that the kernel keeps of itself, declared in one place; `docs/metrics.md` describes them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import psutil

from .metrics import Registry
from .residency import State

if TYPE_CHECKING:
    from .core import Kernel


class Instruments:
    """All metrics of the kernel; members that are used on each call are looked up once by the caller."""

    def __init__(self) -> None:
        self.registry = Registry()
        r = self.registry
        self.calls = r.counters("llmos_calls_total", "Calls that reached their handler", ("call",))
        self.errors = r.counters("llmos_errors_total", "Errors answered", ("call", "error"))
        self.tokens = r.counters("llmos_tokens_total", "Tokens read and generated", ("kind", "model"), "tokens")
        self.seconds = r.histograms("llmos_request_seconds", "Time from arrival to the answer", ("call",), "seconds")
        self.first_token = r.histogram("llmos_first_token_seconds", "Time to the first streamed token", "seconds")
        self.queued = r.histogram("llmos_queue_seconds", "Time a request waited for its start", "seconds")
        self.load_seconds = r.histogram("llmos_model_load_seconds", "Time to load a model", "seconds")
        self.loop_lag = r.histogram("llmos_loop_lag_seconds", "Time one turn of the kernel's loop took", "seconds")
        self.sessions = r.gauge("llmos_sessions", "Open sessions")
        self.in_flight = r.gauge("llmos_requests_in_flight", "Requests without an answer yet")
        self.models = r.gauges("llmos_models", "Loaded models by state", ("state",))
        self.device_bytes = r.gauges("llmos_device_bytes", "Bytes of a device by use", ("device", "what"), "bytes")
        self.restarts = r.gauges("llmos_driver_restarts", "Restarts of a driver's host", ("driver",))
        self.driver_values = r.gauges("llmos_driver", "Figures that drivers report", ("driver", "about", "name"))
        self.spent_ns = r.counters(
            "llmos_device_nanoseconds_total", "Device time spent", ("device", "work_class", "tenant"), "nanoseconds"
        )
        self.resident = r.gauge("llmos_kernel_resident_bytes", "Resident memory of the kernel", "bytes")


def refresh(kernel: Kernel) -> None:
    """Bring the gauges up to date that nobody keeps in between."""
    i = kernel.instruments
    i.in_flight.set(len(kernel.requests))
    i.resident.set(psutil.Process().memory_info().rss)
    states = Counter(model.status for model in kernel.models.by_id.values())
    for state in State:
        i.models.labels(state.value).set(states[state.value])
    sums: Counter[tuple[str, str]] = Counter()
    for row in kernel.ledger.rows():
        sums[row.device, row.what] += row.ledger
    for device in kernel.ledger.devices():
        sums[device, "free"] = kernel.ledger.free(device)
    for labels, gauge in i.device_bytes.members():
        gauge.set(sums[labels["device"], labels["what"]])
    for (device, what), held in sums.items():
        i.device_bytes.labels(device, what).set(held)

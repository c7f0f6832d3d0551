"""The metrics that the kernel keeps of itself, declared in one place; `docs/operations.md` describes them.

Those with the label `model_name` follow the names that servers of language models have in common (vLLM's minimum set);
they are counted once per request, never per token, and leave with their model.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import psutil

from llmos.syscalls.types import Inference, Timing

from .metrics import Registry
from .residency import State

if TYPE_CHECKING:
    from .core import Kernel

MODEL = ("model_name",)
SECOND = 1e9


class Instruments:
    """All metrics of the kernel; members that are used on each call are looked up once by the caller."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._declare_calls(self.registry)
        self._declare_devices(self.registry)
        self._declare_models(self.registry)

    def _declare_calls(self, r: Registry) -> None:
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
        self.oldest = r.gauge("llmos_queue_oldest_seconds", "How long the oldest waiting request has waited", "seconds")

    def _declare_devices(self, r: Registry) -> None:
        self.models = r.gauges("llmos_models", "Loaded models by state", ("state",))
        self.device_bytes = r.gauges("llmos_device_bytes", "Bytes of a device by use", ("device", "what"), "bytes")
        self.restarts = r.gauges("llmos_driver_restarts", "Restarts of a driver's host", ("driver",))
        self.driver_values = r.gauges("llmos_driver", "Figures that drivers report", ("driver", "about", "name"))
        self.spent_ns = r.counters(
            "llmos_device_nanoseconds_total", "Device time spent", ("device", "work_class", "tenant"), "nanoseconds"
        )
        self.device_total = r.gauges("llmos_device_total_bytes", "All bytes of a device", ("device",), "bytes")
        self.out_of_memory = r.counters(
            "llmos_out_of_memory_total", "Requests that a device had no memory for while they ran", ("device", "model")
        )
        self.resident = r.gauge("llmos_kernel_resident_bytes", "Resident memory of the kernel", "bytes")
        self.evictions = r.counters("llmos_evictions_total", "Models put to sleep, by reason", ("reason",))

    def _declare_models(self, r: Registry) -> None:
        self.running = r.gauges("llmos_num_requests_running", "Requests that run on a model", MODEL)
        self.waiting = r.gauges("llmos_num_requests_waiting", "Requests that wait for a model", MODEL)
        self.kv_usage = r.gauges("llmos_kv_cache_usage_perc", "Share of a model's cache pages in use, 0 to 1", MODEL)
        self.model_bytes = r.gauges(
            "llmos_model_bytes", "Bytes of a model by device and use", (*MODEL, "device", "what"), "bytes"
        )
        self.success = r.counters(
            "llmos_request_success_total", "Inferences answered, by how they ended", (*MODEL, "finished_reason")
        )
        self.prompt_tokens = r.counters("llmos_prompt_tokens_total", "Tokens of prompts", MODEL, "tokens")
        self.generation_tokens = r.counters("llmos_generation_tokens_total", "Tokens generated", MODEL, "tokens")
        self.to_first = r.histograms(
            "llmos_time_to_first_token_seconds", "Time to the first streamed token", MODEL, "seconds"
        )
        self.between = r.histograms(
            "llmos_inter_token_latency_seconds", "Mean time between the tokens of a request", MODEL, "seconds"
        )
        self.whole = r.histograms(
            "llmos_e2e_request_latency_seconds", "Time from arrival to the answer of an inference", MODEL, "seconds"
        )
        self.queue_time = r.histograms(
            "llmos_request_queue_time_seconds", "Time an inference waited for its start", MODEL, "seconds"
        )
        self.model_load = r.histograms(
            "llmos_model_load_time_seconds", "Time to load or wake a model", MODEL, "seconds"
        )

    def answered(self, model: str, inference: Inference, timing: Timing) -> None:
        """Count one inference that was answered on the model of that name."""
        usage, choices = inference.usage, inference.choices
        self.tokens.labels("prompt", model).inc(usage.prompt_tokens)
        self.tokens.labels("generated", model).inc(usage.new_tokens)
        self.prompt_tokens.labels(model).inc(usage.prompt_tokens)
        self.generation_tokens.labels(model).inc(usage.new_tokens)
        self.success.labels(model, choices[0].reason if choices else "stop").inc()
        self.whole.labels(model).observe(timing.total / SECOND)
        self.queue_time.labels(model).observe(timing.queued / SECOND)
        if timing.first:
            self.first_token.observe(timing.first / SECOND)
            self.to_first.labels(model).observe(timing.first / SECOND)
            gaps = usage.new_tokens // max(1, len(choices)) - 1
            if gaps > 0:
                self.between.labels(model).observe((timing.total - timing.first) / gaps / SECOND)

    def forget_model(self, model: str) -> None:
        """The last model of that name has left: so do its members."""
        self.tokens.forget("model", model)
        for family in self.registry.families():
            if MODEL[0] in family.label_names:
                family.forget(MODEL[0], model)


def refresh(kernel: Kernel) -> None:
    """Bring the gauges up to date that nobody keeps in between."""
    i = kernel.instruments
    i.in_flight.set(len(kernel.requests))
    i.resident.set(psutil.Process().memory_info().rss)
    models = kernel.models.by_id.values()
    states = Counter(model.status for model in models)
    for state in State:
        i.models.labels(state.value).set(states[state.value])
    queue = kernel.scheduler.waiting()
    running = Counter(ticket.lane for ticket in kernel.scheduler.running())
    waiting = Counter(ticket.lane for ticket in queue)
    now = kernel.runner.clock()
    i.oldest.set(max((now - ticket.arrived_ns for ticket in queue), default=0) / SECOND)
    for model in models:
        i.running.labels(model.name).set(running[model.id])
        i.waiting.labels(model.name).set(waiting[model.id])
    _refresh_bytes(kernel)


def _refresh_bytes(kernel: Kernel) -> None:
    i = kernel.instruments
    names = {model.host_id: model.name for model in kernel.models.by_id.values()}
    sums: Counter[tuple[str, str]] = Counter()
    owned: Counter[tuple[str, str, str]] = Counter()
    for row in kernel.ledger.rows():
        sums[row.device, row.what] += row.ledger
        if row.owner in names:
            owned[names[row.owner], row.device, row.what] += row.ledger
    for device in kernel.ledger.devices():
        sums[device, "free"] = kernel.ledger.free(device)
        i.device_total.labels(device).set(kernel.ledger.total(device))
    for labels, gauge in i.device_bytes.members():
        gauge.set(sums[labels["device"], labels["what"]])
    for (device, what), held in sums.items():
        i.device_bytes.labels(device, what).set(held)
    for labels, gauge in i.model_bytes.members():
        gauge.set(owned[labels["model_name"], labels["device"], labels["what"]])
    for (name, device, what), held in owned.items():
        i.model_bytes.labels(name, device, what).set(held)

"""What is counted of HTTP, and `GET /metrics`: that and the kernel's own metrics, as Prometheus reads them.

The kernel's keep their names, help and buckets. Only the scope `admin` sees tenants: for others the members that differ
in the tenant alone are added up, and models that their key may not use are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from llmos.syscalls.errors import LlmosError
from llmos.syscalls.types import Metric
from llmos.userland.link import NoKernel

from .caller import Caller, caller_of, gateway_of
from .models import plain
from .routing import requires

REQUEST_S = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
OVERHEAD_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1)
"""Bucket bounds in seconds."""

TENANT = "tenant"
_MODEL_LABELS = ("model_name", "model")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Instruments:
    """Metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        self.requests = Counter(
            "llmos_gateway_requests_total", "Requests answered", ("route", "method", "status"), registry=r
        )
        self.seconds = Histogram(
            "llmos_gateway_request_seconds", "Time from the head of a request to the end of its answer", ("route",),
            buckets=REQUEST_S, registry=r,
        )  # fmt: skip
        self.outside = Histogram(
            "llmos_gateway_overhead_seconds", "The part of a request's time that was not spent in the kernel",
            ("route",), buckets=OVERHEAD_S, registry=r,
        )  # fmt: skip
        self.streams = Gauge("llmos_gateway_streams", "Streams under way", registry=r)
        self.connections = Gauge("llmos_gateway_connections", "Open connections", registry=r)
        self.disconnects = Counter("llmos_gateway_disconnects_total", "Clients that left early", registry=r)
        self.rejected = Counter("llmos_gateway_rejected_total", "Requests turned away", ("reason",), registry=r)
        self.resident = Gauge("llmos_gateway_resident_bytes", "Resident memory of the gateway", registry=r)
        self.resident.set_function(lambda: float(psutil.Process().memory_info().rss))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request has ended; `route` is the template of its path, empty when there is none."""
        route = route or "unknown"
        self.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def overhead(self, route: str, seconds: float) -> None:
        """Time of a request that was spent here and not in the kernel."""
        self.outside.labels(route or "unknown").observe(seconds)


def without_tenants(metrics: Iterable[Metric]) -> list[Metric]:
    """The metrics without the label `tenant`; those that are the same then are added up."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Metric] = {}
    for metric in metrics:
        labels = {name: value for name, value in metric.labels.items() if name != TENANT}
        key = (metric.help, tuple(labels.items()))
        known = found.get(key)
        value = metric.value + (known.value if known is not None else 0)
        buckets = {le: count + (known.buckets[le] if known is not None else 0) for le, count in metric.buckets.items()}
        found[key] = Metric(
            kind=metric.kind, value=value, unit=metric.unit, help=metric.help, labels=labels, buckets=buckets
        )
    return list(found.values())


def may_see(caller: Caller) -> Callable[[Metric], bool]:
    """Whether a metric is of no model, or of one that the caller may use."""

    def visible(metric: Metric) -> bool:
        return all(caller.may_use(plain(metric.labels[name])) for name in _MODEL_LABELS if name in metric.labels)

    return visible


def families(metrics: Mapping[str, Metric], caller: Caller) -> Iterator[Family]:
    """The kernel's metrics (by name with labels, as `read_metrics` gives them) as far as the caller may see them."""
    by_name: dict[str, list[Metric]] = {}
    for name, metric in metrics.items():
        by_name.setdefault(name.partition("{")[0], []).append(metric)
    visible = may_see(caller)
    for name, members in by_name.items():
        seen = [metric for metric in members if visible(metric)]
        if seen:
            yield _family(name, seen if caller.admin else without_tenants(seen))


def _family(name: str, members: list[Metric]) -> Family:
    first = members[0]
    labels = list(first.labels)
    if first.kind == "histogram":
        histogram = HistogramMetricFamily(name, first.help, labels=labels)
        for member in members:
            buckets = [(le, float(count)) for le, count in member.buckets.items()]
            histogram.add_metric(list(member.labels.values()), buckets, member.value)
        return histogram
    family = CounterMetricFamily if first.kind == "counter" else GaugeMetricFamily
    plain_family = family(name, first.help, labels=labels)
    for member in members:
        plain_family.add_metric(list(member.labels.values()), member.value)
    return plain_family


@dataclass(frozen=True)
class Page(Collector):
    """One answer to `/metrics`: the gateway's own metrics, and the kernel's when it answers."""

    own: CollectorRegistry
    caller: Caller
    kernel: Mapping[str, Metric] | None = field(default=None)

    def collect(self) -> Iterator[Family]:
        """All families, without the time at which each member was made."""
        up = "Whether the kernel answers, 1 or 0"
        yield GaugeMetricFamily("llmos_gateway_kernel_up", up, 0 if self.kernel is None else 1)
        for family in self.own.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
        yield from families(self.kernel or {}, self.caller)


async def metrics(request: Request) -> Response:
    """`GET /metrics`: the Prometheus text format, or OpenMetrics for who asks for it."""
    gateway, caller = gateway_of(request), caller_of(request)
    try:
        own = await gateway.sessions.own()
        found: Mapping[str, Metric] | None = await own.metrics()
    except (LlmosError, NoKernel):
        found = None
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(Page(gateway.instruments.registry, caller, found)), media_type=content_type)


def routes() -> list[BaseRoute]:
    """The route of this module."""
    return [Route("/metrics", requires("read", metrics), methods=["GET"])]

"""Spans and figures for OpenTelemetry, one of each per request, when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

The context of the trace itself (W3C, `traceparent`) is read and echoed by `ids` whether this is there or not. Needs the
extra `otel`; without it nothing of OpenTelemetry is imported. Names are those of its semantic conventions for HTTP and
for generative AI: https://opentelemetry.io/docs/specs/semconv/gen-ai/.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from llmos.syscalls.types import Inference

from .ids import Trace

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SERVICE = "llmos-gateway"
OPERATIONS = {
    "/v1/chat/completions": "chat", "/v1/responses": "chat", "/api/chat": "chat",
    "/v1/completions": "text_completion", "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings", "/api/embed": "embeddings", "/api/embeddings": "embeddings",
}  # fmt: skip
"""What the conventions call the routes that run models."""

_SERVER_ERROR = 500
_log = logging.getLogger("llmos.gateway")


@dataclass(frozen=True)
class Ended:
    """A request that was answered.

    Args:
        trace: where it stands in a trace of its caller; None begins one.
        seconds: from its head to the end of its answer.
        inference: the last result of the kernel, when it ran a model.
    """

    trace: Trace | None
    method: str
    route: str
    status: int
    seconds: float
    inference: Inference | None = None
    model: str = ""


class Tracer(Protocol):
    """Takes what has ended."""

    def ended(self, request: Ended) -> None:
        """Tell of one request. Called in the loop: it must not wait."""

    def close(self) -> None:
        """Send what is left."""


def tracer(environ: Mapping[str, str]) -> Tracer | None:
    """A tracer that exports, if the environment asks for it and the extra is installed."""
    if not environ.get(ENDPOINT):
        return None
    try:
        return OpenTelemetry.exporting()
    except ImportError as error:
        _log.warning("%s is set, but nothing is exported: %s; pip install 'llmos[otel]'", ENDPOINT, error)
        return None


def attributes(request: Ended) -> dict[str, str | int]:
    """Of the span."""
    found: dict[str, str | int] = {
        "http.request.method": request.method,
        "http.route": request.route,
        "http.response.status_code": request.status,
        **dimensions(request),
    }
    if request.inference is not None:
        found["gen_ai.response.id"] = request.inference.id
        found["gen_ai.usage.input_tokens"] = request.inference.usage.prompt_tokens
        found["gen_ai.usage.output_tokens"] = request.inference.usage.new_tokens
    return found


def dimensions(request: Ended) -> dict[str, str | int]:
    """Of the figures: few values each."""
    found: dict[str, str | int] = {"gen_ai.provider.name": "llmos"}
    if request.route in OPERATIONS:
        found["gen_ai.operation.name"] = OPERATIONS[request.route]
    if request.model:
        found["gen_ai.request.model"] = request.model
    if request.status >= 400:
        found["error.type"] = str(request.status)
    return found


class OpenTelemetry:
    """Spans and figures through the SDK of OpenTelemetry.

    Args:
        spans: a processor of spans.
        metrics: a reader of metrics.
    """

    def __init__(self, spans: Any, metrics: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._api = trace
        resource = Resource.create({"service.name": SERVICE})
        self._ids = _Ids()
        self._traces = TracerProvider(resource=resource, id_generator=cast(Any, self._ids))
        self._traces.add_span_processor(spans)
        self._metrics = MeterProvider([metrics], resource=resource)
        self._tracer = self._traces.get_tracer(SERVICE)
        meter = self._metrics.get_meter(SERVICE)
        self._duration = meter.create_histogram("gen_ai.server.request.duration", "s", "Duration of requests")
        self._first = meter.create_histogram("gen_ai.server.time_to_first_token", "s", "Time to the first token")
        self._per_token = meter.create_histogram("gen_ai.server.time_per_output_token", "s", "Time per further token")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens read and generated")

    @classmethod
    def exporting(cls) -> OpenTelemetry:
        """One that sends to the endpoint of the environment. Raises ImportError without the extra."""
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        return cls(BatchSpanProcessor(OTLPSpanExporter()), PeriodicExportingMetricReader(OTLPMetricExporter()))

    def ended(self, request: Ended) -> None:
        """A span of the request's length that ends now, and its figures."""
        end = time.time_ns()
        name = f"{request.method} {request.route}".rstrip()
        span = self._tracer.start_span(
            name, self._parent(request.trace), self._api.SpanKind.SERVER, attributes(request),
            start_time=end - int(request.seconds * 1e9),
        )  # fmt: skip
        if request.status >= _SERVER_ERROR:
            span.set_status(self._api.StatusCode.ERROR)
        span.end(end)
        if request.route in OPERATIONS:
            self._record(request)

    def close(self) -> None:
        """Send what is left."""
        self._traces.shutdown()
        self._metrics.shutdown()

    def _parent(self, trace: Trace | None) -> Any:
        """The caller's span as the parent of ours, whose id is the one that the answer has told already."""
        if trace is None:
            return None
        self._ids.span = int(trace.span, 16)
        parent = self._api.SpanContext(
            int(trace.trace, 16), int(trace.parent, 16), True, self._api.TraceFlags(int(trace.flags, 16))
        )
        return self._api.set_span_in_context(self._api.NonRecordingSpan(parent))

    def _record(self, request: Ended) -> None:
        about = dimensions(request)
        self._duration.record(request.seconds, about)
        if request.inference is None:
            return
        usage, timing = request.inference.usage, request.inference.timing
        self._tokens.record(usage.prompt_tokens, {**about, "gen_ai.token.type": "input"})
        self._tokens.record(usage.new_tokens, {**about, "gen_ai.token.type": "output"})
        if timing.first:
            self._first.record(timing.first / 1e9, about)
            if usage.new_tokens > 1:
                self._per_token.record((timing.total - timing.first) / 1e9 / (usage.new_tokens - 1), about)


class _Ids:
    """Makes ids; the next span gets `span` where it is set. The interface of the SDK's `IdGenerator`."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        self._random = RandomIdGenerator()
        self.span = 0

    def generate_span_id(self) -> int:
        """16 hexadecimal digits."""
        made, self.span = self.span or int(self._random.generate_span_id()), 0
        return made

    def generate_trace_id(self) -> int:
        """32 hexadecimal digits."""
        return int(self._random.generate_trace_id())

    def is_trace_id_random(self) -> bool:
        """Whether the trace ids are random."""
        return True

"""Spans and figures for OpenTelemetry. What needs its SDK is skipped where the extra `otel` is not installed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from gateway_server import serving
from system.kernel_process import KernelProcess

from llmos.syscalls.types import Inference, Timing, Usage
from llmos.userland.gateway.core import tracing
from llmos.userland.gateway.core.ids import Trace
from llmos.userland.gateway.core.tracing import ENDPOINT, Ended, attributes, dimensions, tracer

TRACE = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7", "01")
INFERENCE = Inference(
    id="r-1", task="text-generation", model_version="1", usage=Usage(prompt_tokens=3, new_tokens=5),
    timing=Timing(first=2_000_000_000, total=4_000_000_000),
)  # fmt: skip
CHAT = Ended(TRACE, "POST", "/v1/chat/completions", 200, 4.5, INFERENCE, "tiny")
BROKEN = Ended(None, "GET", "/v1/models", 502, 0.5)


def test_attributes_of_a_span() -> None:
    assert attributes(CHAT) == {
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200,
        "gen_ai.provider.name": "llmos", "gen_ai.operation.name": "chat", "gen_ai.request.model": "tiny",
        "gen_ai.response.id": "r-1", "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 5,
    }  # fmt: skip
    assert dimensions(BROKEN) == {"gen_ai.provider.name": "llmos", "error.type": "502"}


def test_nothing_is_exported_unless_the_environment_asks_for_it() -> None:
    assert tracer({}) is None and tracer({ENDPOINT: ""}) is None


def test_without_the_extra_it_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    assert tracer({ENDPOINT: "http://127.0.0.1:1"}) is None
    assert "llmos[otel]" in caplog.text


def test_nothing_of_opentelemetry_is_imported_otherwise() -> None:
    code = "import sys, llmos.userland.gateway.core.app; print([m for m in sys.modules if 'opentelemetry' in m])"
    assert subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.fixture
def exported() -> Any:
    """A tracer that keeps what it would send: itself, its spans, its metrics by name."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    made = tracing.OpenTelemetry(SimpleSpanProcessor(spans), reader)

    def metrics() -> dict[str, Any]:
        data = reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: metric.data.data_points for scope in scopes for metric in scope.metrics}

    yield made, spans, metrics
    made.close()


def test_the_span_is_a_child_of_the_callers_with_the_id_that_was_told(exported: Any) -> None:
    made, spans, _ = exported
    made.ended(CHAT)
    made.ended(BROKEN)
    chat, broken = spans.get_finished_spans()
    assert f"{chat.context.trace_id:032x}" == TRACE.trace and f"{chat.context.span_id:016x}" == TRACE.span
    assert f"{chat.parent.span_id:016x}" == TRACE.parent and chat.name == "POST /v1/chat/completions"
    assert chat.end_time - chat.start_time == 4_500_000_000 and chat.status.is_unset
    assert broken.parent is None and not broken.status.is_ok and broken.context.span_id != chat.context.span_id


def test_figures_of_a_request_that_ran_a_model(exported: Any) -> None:
    made, _, metrics = exported
    made.ended(CHAT)
    made.ended(BROKEN)
    found = metrics()
    assert {name: [point.sum for point in points] for name, points in found.items()} == {
        "gen_ai.server.request.duration": [4.5],
        "gen_ai.server.time_to_first_token": [2.0],
        "gen_ai.server.time_per_output_token": [0.5],
        "gen_ai.client.token.usage": [3, 5],
    }


class Kept(list[Ended]):
    """A tracer that keeps what it is told."""

    def ended(self, request: Ended) -> None:
        self.append(request)

    def close(self) -> None:
        """Nothing to send."""


def test_the_gateway_tells_of_every_request(gateway_kernel: KernelProcess) -> None:
    kept = Kept()
    with serving(gateway_kernel) as server:
        object.__setattr__(server.gateway, "tracer", kept)
        client = server.client()
        sent = f"00-{TRACE.trace}-{TRACE.parent}-01"
        body = {"model": "null", "messages": [{"role": "user", "content": "abc"}], "stream": True}
        answer = client.post("/v1/chat/completions", json=body, headers={"traceparent": sent})
        assert client.get("/nothing").status_code == 404
    chat, nothing = kept
    assert (chat.route, chat.status, chat.model) == ("/v1/chat/completions", 200, "null")
    assert chat.trace is not None and chat.trace.header() == answer.headers["traceparent"]
    assert (chat.trace.trace, chat.trace.parent) == (TRACE.trace, TRACE.parent)
    assert chat.inference is not None and chat.inference.usage.new_tokens == 4
    assert (nothing.trace, nothing.inference, nothing.status) == (None, None, 404)

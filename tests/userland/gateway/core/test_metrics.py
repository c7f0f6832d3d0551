"""What is counted of HTTP, and the page that Prometheus reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_server import GatewayServer
from prometheus_client.parser import text_string_to_metric_families as parse

from llmos.syscalls.types import Metric
from llmos.userland.gateway.core.caller import Caller
from llmos.userland.gateway.core.metrics import Instruments, Page, families, without_tenants

READER = Caller("k", "u", "key-k", frozenset({"read"}))
ADMIN = Caller("a", "u", "", frozenset({"admin"}))


def spent(tenant: str, value: float, device: str = "cpu0") -> Metric:
    return Metric(kind="counter", value=value, help="Spent", labels={"device": device, "tenant": tenant})


def values(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in parse(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_requests_are_counted_by_route_and_not_by_path() -> None:
    kept = Instruments()
    kept.request("/v1/models/{model:path}", "GET", 200, 0.2)
    kept.request("", "BREW", 404, 0.001)
    kept.overhead("/v1/models/{model:path}", 0.0005)
    page = {family.name: family for family in Page(kept.registry, READER).collect()}
    counted = {tuple(sample.labels.values()): sample.value for sample in page["llmos_gateway_requests"].samples}
    assert counted == {("/v1/models/{model:path}", "GET", "200"): 1, ("unknown", "other", "404"): 1}
    assert page["llmos_gateway_kernel_up"].samples[0].value == 0
    assert page["llmos_gateway_resident_bytes"].samples[0].value > 1 << 20
    assert not [s for family in page.values() for s in family.samples if s.name.endswith("_created")]


def test_two_gateways_count_apart() -> None:
    first, second = Instruments(), Instruments()
    first.disconnects.inc()
    assert second.registry.get_sample_value("llmos_gateway_disconnects_total") == 0


def test_members_that_differ_in_the_tenant_are_added_up() -> None:
    histogram = {"kind": "histogram", "help": "H"}
    metrics = [
        spent("key-a", 2),
        spent("key-b", 3),
        spent("key-a", 5, "gpu0"),
        Metric(value=1, labels={"tenant": "a"}, buckets={"1": 1, "+Inf": 2}, **histogram),
        Metric(value=4, labels={"tenant": "b"}, buckets={"1": 0, "+Inf": 1}, **histogram),
    ]
    cpu, gpu, both = without_tenants(metrics)
    assert (cpu.labels, cpu.value, gpu.labels, gpu.value) == ({"device": "cpu0"}, 5, {"device": "gpu0"}, 5)
    assert (both.labels, both.value, both.buckets) == ({}, 5, {"1": 1, "+Inf": 3})


@pytest.mark.parametrize(("caller", "labels"), [(READER, {"device"}), (ADMIN, {"device", "tenant"})])
def test_only_the_scope_admin_sees_tenants(caller: Caller, labels: set[str]) -> None:
    metrics = {'a_total{tenant="x"}': spent("x", 2), 'a_total{tenant="y"}': spent("y", 3)}
    (family,) = families(metrics, caller)
    assert family.type == "counter" and family.documentation == "Spent"
    assert sum(sample.value for sample in family.samples) == 5
    assert {name for sample in family.samples for name in sample.labels} == labels


def test_a_key_sees_the_models_that_it_may_use() -> None:
    caller = Caller("k", "u", "key-k", frozenset({"read"}), models=("org/*", "tiny"))
    metrics = {
        f'm{{model_name="{name}"}}': Metric(kind="gauge", value=1, help="M", labels={"model_name": name})
        for name in ("tiny", "org/x@2", "secret")
    }
    metrics['t_total{model="secret"}'] = Metric(kind="counter", value=1, help="T", labels={"model": "secret"})
    seen = [sample.labels for family in families(metrics, caller) for sample in family.samples]
    assert seen == [{"model_name": "tiny"}, {"model_name": "org/x@2"}]


def test_the_page_has_the_kernels_metrics_and_our_own(gateway: GatewayServer, root: Path) -> None:
    client = gateway.client()
    body = {"model": "null", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 3}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = values(answer.text)
    null = (("model_name", "null"),)
    assert found["llmos_gateway_kernel_up"][()] == 1
    assert found["llmos_generation_tokens_total"][null] == 3
    assert found["llmos_e2e_request_latency_seconds_count"][null] == 1
    assert found["llmos_request_success_total"][(("finished_reason", "length"), *null)] == 1
    assert found["llmos_gateway_overhead_seconds_count"][(("route", "/v1/chat/completions"),)] == 1
    assert "llmos_driver_restarts" in found and "llmos_loop_lag_seconds_count" in found
    assert not [labels for samples in found.values() for labels in samples if "tenant" in dict(labels)]
    page = (root / "docs/operations.md").read_text()
    own = {name for name in found if name.startswith("llmos_gateway_")}
    assert {n for n in own if not n.endswith(("_bucket", "_sum", "_count")) and f"| `{n}" not in page} == set()


def test_openmetrics_for_who_asks_for_it(gateway: GatewayServer) -> None:
    answer = gateway.client().get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_it_needs_a_key_that_may_read(gateway: GatewayServer) -> None:
    assert gateway.client("").get("/metrics").status_code == 401
    assert gateway.client(gateway.key("infer")).get("/metrics").status_code == 403

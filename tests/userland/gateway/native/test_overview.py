"""The picture of the system, from what was read."""

from __future__ import annotations

from typing import Any

from llmos.syscalls.types import Advice, Alert, LedgerRow, Metric, ObjectInfo
from llmos.userland.gateway.native.overview import Look, gone, picture


def info(kind: str, name: str, **more: Any) -> ObjectInfo:
    fields = more.pop("fields", {})
    return ObjectInfo(
        id=f"{kind[0]}-{name}", kind=kind, name=name, state=more.pop("state", "ready"), fields=fields, **more
    )


def look(at: float = 100.0, calls: float = 0.0, **more: Any) -> Look:
    given: dict[str, Any] = {
        "system": info("system", "system", since=1.0, fields={"version": "0.1", "pid": 5}),
        "devices": [info("device", "cpu0", bytes=1000, fields={"free": 400, "restarts": 2, "cause": "killed"})],
        "drivers": [info("driver", "models", fields={"pid": 9})],
        "models": [info("model", "tiny", bytes=600, state="awake", fields={"weights": "w1", "path": "/models/tiny"})],
        "tasks": [info("task", "import", fields={"kind": "import", "progress": {"done": 1, "total": 2}})],
        "rows": [
            LedgerRow(device="cpu0", what="weights", owner="w1", ledger=500),
            LedgerRow(device="cpu0", what="lease", owner="l-of-somebody", ledger=100),
            LedgerRow(device="cpu0", what="kv", owner="w1"), LedgerRow(device="other", what="kv", owner="w1", ledger=5),
        ],
        "metrics": {
            'llmos_num_requests_running{model_name="tiny"}': Metric(kind="gauge", value=3),
            'llmos_calls_total{call="infer"}': Metric(kind="counter", value=calls, labels={"call": "infer"}),
        },
        **more,
    }  # fmt: skip
    return Look(at=at, **given)


def test_a_device_has_its_ledger_with_the_names_of_models() -> None:
    (device,) = picture(look(), [], False)["devices"]
    assert (device["total"], device["free"], device["restarts"], device["cause"]) == (1000, 400, 2, "killed")
    # Whose a lease is tells nothing to others.
    assert device["rows"] == [
        {"what": "weights", "owner": "tiny", "bytes": 500}, {"what": "lease", "owner": "", "bytes": 100},
    ]  # fmt: skip


def test_what_is_not_told_to_be_free_is_what_the_rows_leave() -> None:
    told = picture(look(devices=[info("device", "cpu0", bytes=1000)]), [], False)
    assert told["devices"][0]["free"] == 400
    told = picture(look(devices=[info("device", "cpu0", bytes=10)]), [], False)
    assert told["devices"][0]["free"] == 0


def test_the_memory_of_the_machine_is_shown_as_a_device() -> None:
    def gauge(value: float) -> Metric:
        return Metric(kind="gauge", value=value)

    metrics = {
        'llmos_device_total_bytes{device="host"}': gauge(5000),
        'llmos_device_bytes{device="host",what="free"}': gauge(900),
    }
    rows = [LedgerRow(device="host", what="weights", owner="w1", ledger=70)]
    told = picture(look(metrics=metrics, rows=rows), [], False)["devices"][-1]
    assert (told["name"], told["total"], told["free"], told["rows"][0]["owner"]) == ("host", 5000, 900, "tiny")
    del metrics['llmos_device_bytes{device="host",what="free"}']
    assert picture(look(metrics=metrics), [], False)["devices"][-1]["free"] == 0
    metrics['llmos_device_total_bytes{device="host"}'] = gauge(0)
    assert [device["name"] for device in picture(look(metrics=metrics), [], False)["devices"]] == ["cpu0"]


def test_models_tasks_and_the_kernel() -> None:
    told = picture(look(), [], False)
    assert told["kernel"] == {"state": "running", "version": "0.1", "pid": 5, "since": 1.0}
    (model,) = told["models"]
    assert (model["id"], model["running"], model["waiting"], model["path"]) == ("m-tiny", 3, 0, "/models/tiny")
    assert told["tasks"][0]["progress"] == {"done": 1, "total": 2} and told["tasks"][0]["kind"] == "import"
    assert told["drivers"] == [
        {"name": "models", "state": "ready", "health": "ok", "restarts": 0, "pid": 9, "cause": ""}
    ]


def test_rates_are_since_the_look_before() -> None:
    looks = [look(at, calls) for at, calls in ((40.0, 0.0), (98.0, 10.0))]
    told = picture(look(100.0, 20.0), looks, False)
    assert told["rates"]["requests_per_s"] == 5.0
    assert picture(look(100.0, 20.0), [], False)["rates"]["requests_per_s"] == 0.0


def test_a_driver_in_trouble_is_told_once() -> None:
    failed = info("driver", "cpu0", state="failed")
    told = picture(look(drivers=[failed], devices=[info("device", "cpu0", state="failed")]), [], True)
    assert [alert["id"] for alert in told["alerts"]] == ["driver:cpu0", "draining:gateway"]


def test_alerts_by_rules_advice_and_queues_are_passed_on() -> None:
    raised = Alert(rule="hot", about="tiny", severity="error", text="latency of tiny is 3", value=3, limit=2, since=1.0)
    advised = Advice(code="pin", about="m-tiny", text="pin it", gain={"seconds": -2.0})
    queue = {"model": "m-tiny", "name": "tiny", "work_class": "batch", "owner": "", "waiting": 2, "running": 1}
    told = picture(look(raised=[raised], advice=[advised], queues=[queue]), [], False)
    assert told["alerts"] == [
        {"id": "rule hot:tiny", "level": "error", "about": "tiny", "text": "hot: latency of tiny is 3"}
    ]
    assert told["advice"][0]["gain"] == {"seconds": -2.0} and told["queues"] == [queue]


def test_without_a_kernel_the_last_picture_stays_marked() -> None:
    last = picture(look(), [], False)
    told = gone(last, 123.0)
    assert told["at"] == 123.0 and told["kernel"]["state"] == "gone" and told["kernel"]["pid"] == 5
    assert told["devices"] == last["devices"] and last["kernel"]["state"] == "running"
    assert told["rates"]["requests_per_s"] == 0.0 and told["rates"].keys() == last["rates"].keys()
    never = gone(None, 1.0)
    assert never["kernel"]["state"] == "gone" and never.keys() == last.keys()

"""What drivers report reaches the ledger, the metrics and those who watch."""

from __future__ import annotations

from scripted import Inside, Program, rows

from llmos.syscalls.events import CACHE_USAGE, Capacity, Memory, MetricEvent, Overrun, Spent


def test_what_drivers_measure_is_taken_over(kernel: Inside, program: Program) -> None:
    program.load("tiny")
    host_id = kernel.null.last("load")["id"]
    kernel.null.event(Memory(device="null0", rows=rows(5000, owner=host_id), foreign_bytes=70))
    found = {row.what: row.ledger for row in kernel.kernel.ledger.rows("null0")}
    assert found == {"weights": 5000, "foreign": 70}
    kernel.null.event(MetricEvent(about="m", values={"occupancy": 0.5}))
    kernel.null.event(MetricEvent(about=host_id, values={CACHE_USAGE: 0.25}))
    kernel.null.event(MetricEvent(about="gone", values={CACHE_USAGE: 0.75}))
    kernel.null.event(Spent(work_class="batch", tenant="0", device_ns=12, tokens=1))
    kernel.null.event(Spent(work_class="batch", tenant="0", device_ns=12, tokens=1))
    kernel.null.event(Capacity(model="m", slots=1))
    usage = program.call("read_metrics", system=program.system, prefix="llmos_kv")
    assert {name: metric["value"] for name, metric in usage.items()} == {
        'llmos_kv_cache_usage_perc{model_name="tiny"}': 0.25
    }
    metrics = program.call("read_metrics", system=program.system, prefix="llmos_d")
    assert metrics['llmos_driver{driver="null0",about="m",name="occupancy"}']["value"] == 0.5
    spent = metrics['llmos_device_nanoseconds_total{device="null0",work_class="batch",tenant="0"}']
    assert spent["value"] == 24


def test_changes_of_drivers_are_events(kernel: Inside, program: Program) -> None:
    with program.watching("device", "driver") as events:
        kernel.kernel.observer.driver_changed(kernel.null.driver, [])
        kernel.kernel.observer.driver_changed(kernel.models.driver, [kernel.kernel.reason("c", "because")])
        program.quiet()
        assert [(e["kind"], e["about"], e["fields"]["reason"]) for e in events.chunks] == [
            ("device", "null0", ""), ("driver", "models", "because")
        ]  # fmt: skip


def test_a_model_that_ran_out_of_memory_is_planned_larger(kernel: Inside, program: Program) -> None:
    program.load("other")
    model = program.load("tiny")
    name = kernel.null.last("load")["id"]
    kernel.null.event(Overrun(model=name, what="kv", predicted=100, measured=350, request="r1"))
    kernel.null.event(Overrun(model=name, what="weights", predicted=1024, measured=1034))
    kernel.null.event(Overrun(model="gone", what="kv", predicted=1, measured=2))
    metrics = program.call("read_metrics", system=program.system, prefix="llmos_out_of")
    assert {name: each["value"] for name, each in metrics.items()} == {
        'llmos_out_of_memory_total{device="null0",model="tiny"}': 2
    }
    program.call("unload_model", model=model)
    plan = program.call("load_model", path="/models/tiny", options={"dry_run": True})["plan"]
    assert {row["what"]: row["predicted"] for row in plan["rows"]} == {"weights": 1034, "kv": 250}
    codes = [each["code"] for each in plan["reasons"]]
    assert plan["needed"] == 1284 and codes == ["plan.corrected", "plan.corrected", "plan.fits"]
    program.load("tiny")
    assert sum(row.ledger for row in kernel.kernel.ledger.rows("null0")) == 1024 + 1284
    ((told,),) = [record.reasons for record in kernel.kernel.decisions.read(about="r1")]
    assert told.code == "memory.overrun" and told.numbers == {"predicted": 100, "measured": 350, "extra": 250}

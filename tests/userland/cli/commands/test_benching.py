"""bench: calls of a running kernel, and traces over policies of residence without one."""

from __future__ import annotations

from typing import Any


def test_bench_measures_calls(llmos: Any) -> None:
    assert set(llmos("bench --json").json) == {"null call p50", "null call p99"}
    assert "make bench" in llmos("bench ipc").out
    assert llmos("bench nothing").status == 1


def test_bench_residency_replays_traces_beside_a_bound(llmos: Any) -> None:
    results = llmos("bench residency --seeds 7 --requests 60 --json").json
    assert {"zipf-1.0", "bursty", "diurnal", "scan"} <= {result["trace"] for result in results}
    for result in results:
        assert (result["seed"], result["requests"]) == (7, 60)
        spent = {line["policy"]: line["reload_s"] for line in result["lines"]}
        assert set(spent) == {"value", "lru", "count", "keep-alive", "informed", "clairvoyant"}
        assert all(result["bound_s"] <= seconds + 1e-6 for seconds in spent.values())


def test_bench_residency_is_a_table_for_people(llmos: Any) -> None:
    ran = llmos("bench residency --seeds 7,8 --requests 40")
    assert "zipf-1.0: 80 requests, seeds 7, 8" in ran.out and "bound" in ran.out and "closed" in ran.out


def test_wrong_seeds_are_refused(llmos: Any) -> None:
    assert llmos("bench residency --seeds x").status == 2

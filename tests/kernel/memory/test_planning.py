"""The verdict on a plan. Through the call: `handlers/test_model.py`."""

from __future__ import annotations

import pytest

from llmos.kernel.memory.planning import judge
from llmos.kernel.residency import Sleep
from llmos.syscalls.types import Eviction, LedgerRow, Plan, Reason

WHY = Reason(code="model.evicted", text="t", rule="least value first")


def plan(needed: int, free: int, short: int = 0, **sizes: int) -> Plan:
    rows = [LedgerRow(device="d", what=what, owner="m", predicted=size) for what, size in sizes.items()]
    return Plan(rows=rows, fits=False, needed=needed, free=free, short=short)


def test_what_is_free_fits() -> None:
    found = judge(plan(10, 10), "d", "/models/m", [], {}, 0, "")
    assert found.fits and [each.code for each in found.reasons] == ["plan.fits"]
    assert found.reasons[0].text == "/models/m needs 10 B of d, 10 B are free" and found.evictions == []


def test_what_would_sleep_is_told_with_its_numbers() -> None:
    victims = [Sleep("m-1", WHY, bytes=6, reload_s=1.5, idle_s=20.0), Sleep("m-2", WHY, bytes=5)]
    found = judge(plan(20, 10), "d", "/models/m", victims, {"m-1": "one", "m-2": "two"}, 0, "")
    assert found.fits and found.would_evict == ["one", "two"]
    assert found.evictions[0] == Eviction(model="one", bytes=6, reload_s=1.5, idle_s=20.0, reason=WHY)
    (reason,) = found.reasons
    assert reason.code == "plan.evicts"
    assert reason.text == "/models/m needs 20 B of d, 10 B are free; one (6 B), two (5 B) would be put to sleep"
    assert reason.numbers == {"needed": 20, "free": 10, "frees": 11, "busy": 0} and reason.rule == "least value first"


@pytest.mark.parametrize(
    ("sizes", "change"),
    [
        ({}, "unpin or unload what holds the bytes, or another device"),
        ({"weights": 8, "kv": 9}, "--quant w8 or w4 (the weights are 8 B), a smaller --max-context (keys and values "
         "are 9 B), unpin or unload what holds the bytes, or another device"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_with_what_would_help(sizes: dict[str, int], change: str) -> None:
    found = judge(plan(20, 10, short=3, **sizes), "d", "/models/m", [], {}, 0, "weights of x: 9 B")
    assert not found.fits and found.would_evict == []
    (reason,) = found.reasons
    assert reason.code == "plan.short" and reason.numbers == {"needed": 20, "free": 10, "short": 3}
    assert reason.text.endswith("; 3 B are missing whatever sleeps (held by weights of x: 9 B)")
    assert reason.change == change

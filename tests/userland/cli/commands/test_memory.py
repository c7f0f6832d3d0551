"""top --memory: the ledger beside what others tell of the same bytes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmos.userland.cli.commands.memory import UNWRITTEN, difference, view
from llmos.userland.cli.out import Out


def test_every_row_of_every_device_is_shown(llmos: Any, system: Any) -> None:
    system.load_model("/models/null", device="null0", name="fox")
    found = llmos("top --memory --json").json
    assert set(found["devices"]) == {"null0", "host"}
    (weights,) = [row for row in found["rows"] if row["name"] == "fox"]
    assert weights["what"] == "weights" and weights["predicted"] == weights["ledger"] > 0
    for device, sizes in found["devices"].items():
        held = sum(row["ledger"] for row in found["rows"] if row["device"] == device)
        assert sizes["total"] - sizes["free"] == held
    ran = llmos("top --memory --once")
    assert "fox" in ran.out and "DIFFERENCE" in ran.out and "host:" in ran.out and "reserve" in ran.out


@pytest.mark.parametrize(
    ("row", "apart"),
    [
        ({"predicted": 10, "ledger": 12, "allocator": 11, "driver": 0}, 2),
        ({"predicted": 0, "ledger": 5, "allocator": 0, "driver": 5}, 0),
        ({"predicted": 0, "ledger": 0, "allocator": 0, "driver": 0}, 0),
    ],
)
def test_who_says_nothing_does_not_count(row: dict[str, Any], apart: int) -> None:
    assert difference(row) == apart


def _viewed(*rows: dict[str, Any]) -> str:
    """What is shown of these rows of a device, whose other figures are 0."""
    from rich.console import Console

    nothing = {"device": "d", "name": "fox", "owner": "w-1", "predicted": 0, "ledger": 0, "allocator": 0, "driver": 0}
    total, free = ({"device": "d", "what": what} for what in ("total", "free"))
    system = SimpleNamespace(
        metrics=lambda _: {
            "llmos_device_total_bytes": SimpleNamespace(labels=total, value=9),
            "llmos_device_bytes": SimpleNamespace(labels=free, value=9),
        },
        read=lambda _: json.dumps([{**nothing, **row} for row in rows]),
    )
    console = Console(width=200)
    with console.capture() as shown:
        for part in view(cast(Any, SimpleNamespace(system=system, out=Out(False)))):
            console.print(part)
    return shown.get()


def test_it_says_why_keys_and_values_are_less_than_what_is_allocated() -> None:
    assert UNWRITTEN in _viewed({"what": "kv", "predicted": 9, "allocator": 9, "driver": 1})
    assert UNWRITTEN not in _viewed({"what": "kv", "predicted": 9, "allocator": 9, "driver": 9})


def test_a_model_that_sleeps_has_no_line_without_a_byte() -> None:
    shown = _viewed({"what": "weights", "name": "owl"}, {"what": "weights", "predicted": 5})
    assert "fox" in shown and "owl" not in shown

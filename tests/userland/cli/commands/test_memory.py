"""top --memory: the ledger beside what others tell of the same bytes."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.userland.cli.commands.memory import difference


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

"""top --memory: every byte of the devices, as four tell it that do not know of each other.

*Planned* from the model's configuration before it was loaded, *ledger* as the kernel counts it, *allocator* as the
driver's own allocator does, *driver* as the hardware or the operating system does.
"""

from __future__ import annotations

import json
from typing import Any

from .. import text
from ..cli import Cli

COLUMNS = ("DEVICE", "OWNER", "WHAT", ">PLANNED", ">LEDGER", ">ALLOCATOR", ">DRIVER", ">DIFFERENCE")
FIGURES = ("predicted", "ledger", "allocator", "driver")

UNWRITTEN = "kv: pages that nobody has written yet are promised and allocated, but take nothing of the machine (DRIVER)"


def figures(cli: Cli) -> dict[str, Any]:
    """The rows of the ledger, and total and free bytes of each device."""
    return {"devices": sizes(cli), "rows": json.loads(cli.system.read("/sys/memory"))}


def sizes(cli: Cli) -> dict[str, dict[str, int]]:
    """Total and free bytes of each device of the ledger, `host` among them."""
    devices: dict[str, dict[str, int]] = {}
    for name, metric in cli.system.metrics("llmos_device_").items():
        kind = "total" if name.startswith("llmos_device_total_bytes") else metric.labels.get("what", "")
        if kind in ("total", "free"):
            devices.setdefault(metric.labels["device"], {})[kind] = int(metric.value)
    return devices


def view(cli: Cli) -> list[Any]:
    """The table as rich objects, one below the other."""
    from rich.text import Text

    found = figures(cli)
    parts: list[Any] = []
    for device, sizes in sorted(found["devices"].items()):
        rows = [row for row in found["rows"] if row["device"] == device and any(row[name] for name in FIGURES)]
        head = f"{device}: {text.size(sizes['total'])}, {text.size(sizes['free'])} free"
        parts += [Text(head, style="bold"), cli.out.grid(COLUMNS, [_line(row) for row in rows]) if rows else Text("-")]
        parts.append(Text())
    if any(row["what"] == "kv" and row["driver"] < row["allocator"] for row in found["rows"]):
        parts.append(Text(UNWRITTEN, style="dim"))
    return parts


def difference(row: dict[str, Any]) -> int:
    """How far those apart are that tell the same bytes; who says nothing does not count."""
    told = [row[name] for name in FIGURES if row[name]]
    return max(told) - min(told) if told else 0


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    sizes = [text.size(row[name]) if row[name] else "-" for name in FIGURES]
    return (row["device"], row["name"] or row["owner"] or "-", row["what"], *sizes, text.size(difference(row)))

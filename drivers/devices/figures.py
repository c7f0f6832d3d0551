"""What a process holds of a device, shared out to the rows of its models.

The rule: each row gets what of its own memory is really there, so that memory which was asked for and never written
counts nothing. Where that is more in all than the process has grown by (pages that it shares count in part), all rows
are scaled down alike. The rest of what it has grown by (libraries, the heap) belongs to no model: it is the device's
own row, `workspace` on hardware with memory of its own, and `runtime` of the host where its memory is the host's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..contract import Row

HOST = "host"
Figures = Mapping[tuple[str, str], int]
"""Bytes by (what, owner)."""


def shared_out(rows: Sequence[Row], held: int, absent: Figures, device: str, pooled: bool) -> list[Row]:
    """The rows with their `driver` figures, which add up to `held`, and the device's own. `absent`: what is not there
    of the bytes that the allocator counts. Rows on the host are left as they are, unless the device is `pooled` with
    it: then they are part of what is held."""
    mine = [row for row in rows if pooled or not row.device]
    there = {id(row): row.allocator - (0 if row.device else absent.get((row.what, row.owner), 0)) for row in mine}
    total = sum(there.values())
    scale = min(1.0, held / total) if total else 1.0
    made = [replace(row, driver=int(scale * there[id(row)])) if id(row) in there else row for row in rows]
    rest = max(0, held - sum(row.driver for row in made if pooled or not row.device))
    own = Row("runtime", device, driver=rest, device=HOST) if pooled else Row("workspace", device, driver=rest)
    return [*made, own]

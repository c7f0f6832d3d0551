"""devices: what they are, and with --ops which implementation serves each operation on them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from llmos.syscalls.errors import NotFound, NotSupported

from ..cli import Cli
from . import memory
from .looking import DEVICE_COLUMNS, device_row, used

Served = Mapping[str, Mapping[str, Any]]
"""Of one device: by op and dtype who serves it, who would too, and who does not, with the reason."""


def devices(cli: Cli, values: Namespace) -> int:
    return _show_ops(cli) if values.ops else _list(cli)


def _list(cli: Cli) -> int:
    """The devices, and below them the machine's own memory, which is one in the ledger alone."""
    found = cli.system.devices()
    if cli.out.result(found):
        return 0
    rows = [device_row(info) for info in found]
    if host := memory.sizes(cli).get("host"):
        rows.append(("host", "", "", *used(host["total"], host["free"]), "the machine's own memory"))
    cli.out.table(DEVICE_COLUMNS, rows)
    return 0


def _show_ops(cli: Cli) -> int:
    found: dict[str, Served] = {}
    silent: list[str] = []
    for info in cli.system.devices():
        assert info.handle is not None
        try:
            found[info.name] = cli.system.control(info.handle, "inspect", topic="ops").fields["report"]
        except NotSupported:
            silent.append(info.name)
    if cli.out.result(found):
        return 0
    if not found:
        raise NotFound(f"no device has ops: {', '.join(silent) or 'there is none'}")
    for name, served in found.items():
        dtypes = list(dict.fromkeys(dtype for of in served.values() for dtype in of))
        rows = [ops_row(op, of, dtypes) for op, of in served.items()]
        cli.out.table((f"{name.upper()}: OP", *map(str.upper, dtypes), "NOT SERVED BY"), rows)
    return 0


def ops_row(op: str, of: Mapping[str, Any], dtypes: Sequence[str]) -> Sequence[str]:
    """The op, who serves each dtype, and who does not and why; dtypes refused for the same reason stand together."""
    refused: dict[tuple[str, str], list[str]] = {}
    for dtype in dtypes:
        for name, reason in of[dtype]["refused"].items():
            refused.setdefault((name, reason), []).append(dtype)
    why = [
        f"{name}: {reason}" if len(which) == len(dtypes) else f"{name} for {', '.join(which)}: {reason}"
        for (name, reason), which in refused.items()
    ]
    return op, *(of[dtype]["serves"] or "nothing" for dtype in dtypes), "; ".join(why)

"""devices: the list, and what serves each operation."""

from __future__ import annotations

from typing import Any

from llmos.userland.cli.commands.devices import ops_row


def served(by: str, **refused: str) -> dict[str, Any]:
    return {"serves": by, "others": [], "refused": refused}


def test_the_list(llmos: Any) -> None:
    ran = llmos("devices")
    null, host = (next(line for line in ran.out.splitlines() if line.startswith(name)) for name in ("null0", "host "))
    assert ran.status == 0 and "no hardware: echoes" in null
    assert "the machine's own memory" in host and " %" in host and "iB" in host
    assert [info["name"] for info in llmos("devices --json").json] == ["null0"]


def test_devices_without_ops_are_said_to_have_none(llmos: Any) -> None:
    ran = llmos("devices --ops")
    assert ran.status == 1 and "no device has ops: null0" in ran.err
    assert llmos("devices --ops --json").json == {}


def test_one_reason_for_several_dtypes_is_said_once() -> None:
    of = {"float32": served("torch", fast="halves"), "bfloat16": served("fast"), "float16": served("fast", odd="no")}
    row = ops_row("add", of, ["float32", "bfloat16", "float16"])
    assert row == ("add", "torch", "fast", "fast", "fast for float32: halves; odd for float16: no")
    both = {"float32": served("", fast="never"), "float16": served("torch", fast="never")}
    assert ops_row("add", both, ["float32", "float16"]) == ("add", "nothing", "torch", "fast: never")

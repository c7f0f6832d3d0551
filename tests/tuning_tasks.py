"""Tuning tasks of a kernel whose drivers are scripted."""

from __future__ import annotations

from typing import Any

from scripted import Inside, Program

from llmos.syscalls.errors import LlmosError
from llmos.syscalls.events import TuneEnded

RECIPE = {"method": "lora", "seed": 7}


def begin(
    program: Program, model: int, out: str = "/models/mine", promote_if: str = "", **fields: Any
) -> dict[str, Any]:
    """A task that has begun."""
    recipe = {**RECIPE, "promote_if": promote_if}
    made: dict[str, Any] = program.call("tune", model=model, recipe=recipe, data="/home/d.jsonl", out=out, **fields)
    return made


def ends(kernel: Inside, task: dict[str, Any], reason: str = "done", error: LlmosError | None = None) -> None:
    wire = error.to_wire() if error is not None else None
    manifest = {"architecture": "LORA adapter", "tasks": ["text-generation"]}
    kernel.null.event(TuneEnded(id=task["id"], reason=reason, values={"loss": 0.25}, manifest=manifest, error=wire))


def result(program: Program, task: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = program.call("wait_task", task=task["handle"])
    return value


def record(kernel: Inside, task: dict[str, Any]) -> Any:
    return kernel.kernel.tunes.runs.read(task["id"])

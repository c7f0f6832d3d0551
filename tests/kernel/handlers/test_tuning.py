"""Tuning is not offered by any driver yet, and says so."""

from __future__ import annotations

from scripted import Program

from llmos.syscalls.errors import NotSupported


def test_tuning_is_refused(program: Program) -> None:
    model = program.load("tiny")
    error = program.error("tune", model=model, recipe={"method": "lora"}, data="/home/d", out="/models/x")
    assert isinstance(error, NotSupported) and "'lora'" in str(error)

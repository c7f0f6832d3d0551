"""The call `tune`: what it answers; what becomes of the task is in `tunes`."""

from __future__ import annotations

from scripted import Inside, Program

from llmos.syscalls.driver import Tuning
from llmos.syscalls.errors import BadArgument


def test_a_task_is_answered(kernel: Inside, program: Program) -> None:
    kernel.null.answers["tune"] = Tuning(rows=[], steps=1, tokens=2)
    kernel.tuning()
    model = program.load("tiny")
    task = program.call("tune", model=model, recipe={"method": "lora"}, data="/home/d", out="/models/x")
    assert (task["kind"], task["state"]) == ("tune", "running")
    assert program.call("stat_object", handle=task["handle"])["id"] == task["id"]


def test_what_the_driver_refuses_is_refused_before_there_is_a_task(kernel: Inside, program: Program) -> None:
    kernel.null.answers["tune"] = BadArgument("method is 'magic'", name="method", got="magic", want="lora")
    kernel.tuning()
    model = program.load("tiny")
    error = program.error("tune", model=model, recipe={"method": "magic"}, data="/home/d", out="/models/x")
    assert isinstance(error, BadArgument) and error.got == "magic"

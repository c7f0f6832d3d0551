"""Models that leave: replaced, drained, with adapters. By force or not: `handlers/test_model.py`."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import Inside, Program

from llmos.kernel.unloading import unload
from llmos.syscalls.errors import BadModel


@pytest.fixture
def model(program: Program) -> int:
    return program.load("tiny")


def replace(program: Program, path: str, **fields: Any) -> int:
    options = {"name": "tiny", "replace": True}
    found: int = program.call("load_model", path=path, options=options, **fields)["handle"]
    return found


def test_a_model_that_is_replaced_twice_leaves_one(kernel: Inside, program: Program, model: int) -> None:
    running = program.start(model, "x")
    replace(program, "/models/second")
    assert len(kernel.kernel.models.by_id) == 2
    third = replace(program, "/models/third")  # the second has nothing to do and leaves at once
    kernel.null.release("submit")
    program.wait(running)
    assert [found.path for found in kernel.kernel.models.by_id.values()] == ["/models/third"]
    assert program.state(third) == "awake"


def test_an_adapter_that_is_replaced_leaves_with_a_base_that_is(kernel: Inside, program: Program, model: int) -> None:
    adapter = program.call("load_model", path="/models/adapter", base=model, options={"name": "tone"})["handle"]
    running = program.start(adapter, "x")
    options = {"name": "tone", "replace": True}
    program.call("load_model", path="/models/other", base=model, options=options)
    replace(program, "/models/second")
    assert len(kernel.kernel.models.by_id) == 4
    kernel.null.release("submit")
    assert program.wait(running).error is None
    assert [found.path for found in kernel.kernel.models.by_id.values()] == ["/models/second"]


def test_a_model_that_is_on_its_way_is_drained_when_that_is_over(kernel: Inside, program: Program, model: int) -> None:
    gone: list[object] = []
    program.control(model, "sleep")
    kernel.null.answers["wake"] = BadModel("damaged")
    kernel.null.holds.add("wake")
    waiting = program.start(model, "x")  # it is on its way when it is replaced
    program.call("load_model", path="/models/other", options={"name": "other"})
    (found, _) = kernel.kernel.models.by_id.values()
    leaving = unload(kernel.kernel, found, force=False, drain=True)
    kernel.kernel.runner.spawn(leaving, lambda _value, error: gone.append(error))
    assert not gone
    kernel.null.release("wake")
    assert gone == [None] and isinstance(program.wait(waiting).error, BadModel)


def test_a_device_that_ends_while_it_unloads_has_given_the_bytes_back(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.null.holds.add("unload")
    number = program.send("unload_model", model=model)
    kernel.null.dies()
    assert program.wait(number).value == {"bytes": 1024} and not kernel.kernel.models.by_id
    kernel.null.starts()
    assert kernel.null.names().count("load") == 1

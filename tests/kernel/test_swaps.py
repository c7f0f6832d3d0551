"""Hot swap: another version takes the place of the one that runs."""

from __future__ import annotations

import pytest
from scripted import MEMORY, Inside, Program

from llmos.kernel import returning
from llmos.syscalls.errors import BadModel, BadState, Busy, NotFound, NotSupported, PeerGone


@pytest.fixture
def model(program: Program) -> int:
    return program.load("tiny")


def free(kernel: Inside) -> int:
    return kernel.kernel.ledger.free("null0")


def control(program: Program, model: int, action: str, **options: object) -> int:
    return program.send("control_object", handle=model, action=action, options=options)


def test_a_swap_tells_how_far_it_has_come(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.holds.add("load")
    number = control(program, model, "swap", to="v2")
    kernel.null.progress("load", 3)
    kernel.null.release("load")
    assert [told["done"] for told in program.wait(number).progress] == [3]


def test_a_swap_is_told(kernel: Inside, program: Program, model: int) -> None:
    program.control(model, "swap", to="2")
    asked = f"'test' asked for it ({program.session})"
    info = program.call("stat_object", handle=model)
    *_, record = [record for record in kernel.kernel.journal.read(about=info["id"]) if record.unit == "model"]
    assert record.text == f"tiny went from version 1 to 2: {asked}"
    assert [reason.text for reason in record.reasons] == [reason["text"] for reason in info["reasons"]]


def test_a_swap_moves_new_requests_and_lets_old_ones_end(kernel: Inside, program: Program, model: int) -> None:
    context = program.call("open_context", model=model)["handle"]
    old = program.start(model, "old")
    answer = program.wait(control(program, model, "swap", to="2"))
    assert answer.value["fields"]["version"] == "2" and "model.swapped" in answer.reasons
    assert program.state(context) == "lost"
    new = program.start(model, "new")
    first, second = (body["work"]["model"] for name, body in kernel.null.calls if name == "submit")
    assert first != second and "unload" not in kernel.null.names()
    kernel.null.release("submit")
    program.wait(old)
    assert kernel.null.last("unload")["id"] == first and free(kernel) == MEMORY - 1024
    kernel.null.release("submit")
    assert program.wait(new).value["model_version"] == "2"


def test_a_swap_that_fails_changes_nothing(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.answers["load"] = BadModel("damaged")
    assert isinstance(program.control_error(model, "swap", to="2"), BadModel)
    info = program.call("stat_object", handle=model)
    assert (info["fields"]["version"], info["state"]) == ("1", "awake")
    assert free(kernel) == MEMORY - 1024 and kernel.models.names()[-1] == "release"


def test_only_an_awake_whole_model_is_swapped(kernel: Inside, program: Program, model: int) -> None:
    adapter = program.call("load_model", path="/models/adapter", base=model)["handle"]
    assert isinstance(program.control_error(adapter, "swap", to="2"), NotSupported)
    program.control(model, "sleep")
    assert isinstance(program.control_error(model, "swap", to="2"), BadState)


def test_a_model_with_adapters_is_not_swapped(kernel: Inside, program: Program, model: int) -> None:
    adapter = program.call("load_model", path="/models/adapter", base=model)["handle"]
    error = program.control_error(model, "swap", to="2")
    assert isinstance(error, Busy) and "has adapters: adapter; unload" in str(error)
    program.call("unload_model", model=adapter)
    kernel.null.holds.add("load")
    number = control(program, model, "swap", to="2")
    kernel.null.holds.clear()
    program.call("load_model", path="/models/adapter", base=model)
    kernel.null.release("load")
    assert isinstance(program.wait(number).error, Busy)
    loads = [body["id"] for name, body in kernel.null.calls if name == "load"]
    assert kernel.null.last("unload")["id"] == loads[2] and free(kernel) == MEMORY - 2048


def test_a_model_that_ends_while_it_is_swapped_leaves_nothing(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.holds.add("load")
    number = control(program, model, "swap", to="2")
    program.call("unload_model", model=model)
    kernel.null.release("load")
    assert isinstance(program.wait(number).error, NotFound)
    assert free(kernel) == MEMORY and kernel.models.names().count("release") == 2


def test_old_weights_are_forgotten_with_their_device(kernel: Inside, program: Program, model: int) -> None:
    old = program.start(model, "old", "infer_stream")
    kernel.null.chunk({"index": 0, "text": "a", "tokens": [1]})
    program.control(model, "swap", to="2")
    kernel.null.dies()
    assert isinstance(program.wait(old).error, PeerGone)
    assert [body["token"] for name, body in kernel.models.calls if name == "release"] == ["/tiny@1"]
    kernel.null.starts()
    assert program.call("stat_object", handle=model)["fields"]["version"] == "2"


def test_another_devices_old_weights_stay(kernel: Inside, program: Program, model: int) -> None:
    old = program.start(model, "old")
    program.control(model, "swap", to="2")
    returning.lost(kernel.kernel, kernel.files.driver, "test")
    assert "release" not in kernel.models.names()
    kernel.null.release("submit")
    program.wait(old)
    assert "release" in kernel.models.names()

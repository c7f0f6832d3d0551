"""Other models that a recipe names: found by their names, with rights, held while they are needed, found again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scripted import Inside, Program, inside
from tuning_tasks import ends, record, result

from llmos.kernel.session import Peer
from llmos.kernel.tunes.others import find, named_in
from llmos.syscalls.errors import BadArgument, BadState, Busy, Denied, LlmosError, NotFound
from llmos.syscalls.events import TuneProgress
from llmos.syscalls.types import TuneRecipe

TAUGHT = {"teacher": {"model": "big", "share": 0.5}}
BOTH = {**TAUGHT, "orthogonal": {"to": ["old"]}}


def recipe(options: dict[str, Any]) -> dict[str, Any]:
    return {"method": "lora", "options": options}


def begin(program: Program, model: int, options: dict[str, Any], out: str = "/models/mine") -> dict[str, Any]:
    made: dict[str, Any] = program.call("tune", model=model, recipe=recipe(options), data="/home/d", out=out)
    return made


def refused(program: Program, model: int, options: dict[str, Any]) -> LlmosError:
    return program.error("tune", model=model, recipe=recipe(options), data="/home/d", out="/models/mine")


def begun(kernel: Inside) -> dict[str, Any]:
    """What the driver was told at last."""
    return [body for name, body in kernel.null.calls if name == "tune" and not body["dry_run"]][-1]


def adapter(program: Program, base: int, name: str = "old") -> int:
    handle: int = program.call("load_model", path=f"/models/{name}", base=base, options={"name": name})["handle"]
    return handle


def object_of(kernel: Inside, name: str) -> Any:
    found = kernel.kernel.models.named(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, []),
        (BOTH, ["big", "old"]),
        ({"teacher": {"model": "a"}, "orthogonal": {"to": ["a", "b", "b"]}}, ["a", "b"]),
        ({"teacher": "big", "orthogonal": ["old"]}, []),
        ({"teacher": {"model": 3}, "orthogonal": {"to": [4, "", "c"]}}, ["c"]),
        ({"orthogonal": {"to": "old"}}, []),
    ],
)
def test_names_stand_where_the_options_have_them(options: dict[str, Any], names: list[str]) -> None:
    assert named_in(TuneRecipe(method="lora", options=options)) == names


def test_the_driver_is_told_by_which_names_it_has_them(kernel: Inside, program: Program, model: int) -> None:
    program.load("big")
    adapter(program, model)
    task = begin(program, model, BOTH)
    wanted = {name: object_of(kernel, name).host_id for name in ("big", "old")}
    assert begun(kernel)["models"] == wanted
    kept = record(kernel, task).others
    assert {name: (base.place.path, base.adapter) for name, base in kept.items()} == {
        "big": ("/models/big", False), "old": ("/models/old", True),
    }  # fmt: skip


def test_they_stay_while_the_task_runs_and_not_longer(kernel: Inside, program: Program, model: int) -> None:
    big = program.load("big")
    task = begin(program, model, TAUGHT)
    assert isinstance(program.control_error(big, "sleep"), BadState)
    error = program.error("unload_model", model=big)
    assert isinstance(error, Busy) and f"{task['id']} works with it" in str(error)
    ends(kernel, task)
    assert result(program, task)["state"] == "done"
    program.control(big, "sleep")
    assert program.state(big) == "asleep"


def test_one_that_is_unloaded_by_force_fails_the_task(kernel: Inside, program: Program, model: int) -> None:
    big = program.load("big")
    task = begin(program, model, TAUGHT)
    program.call("unload_model", model=big, force=True)
    ended = result(program, task)
    assert ended["state"] == "failed" and "big was unloaded" in str(ended["value"]["error"])


def test_one_that_sleeps_is_woken(kernel: Inside, program: Program, model: int) -> None:
    big = program.load("big")
    program.control(big, "sleep")
    begin(program, model, TAUGHT)
    assert program.state(big) == "awake"


def test_when_its_host_died_they_are_ready_before_the_job_begins_again(
    kernel: Inside, program: Program, model: int
) -> None:
    big = program.load("big")
    begin(program, model, TAUGHT)
    kernel.null.dies()
    kernel.null.starts()
    assert program.state(big) == "awake" and begun(kernel)["models"] == {"big": object_of(kernel, "big").host_id}
    assert len([name for name in kernel.null.names() if name == "tune"]) >= 2


def test_a_name_that_is_not_loaded_is_told(kernel: Inside, program: Program, model: int) -> None:
    error = refused(program, model, TAUGHT)
    assert isinstance(error, NotFound) and "'big', and no model is loaded by that name" in str(error)
    assert not [name for name in kernel.null.names() if name == "tune"]


def test_one_on_another_device_or_beside_another_model_is_refused(folder: Path) -> None:
    with inside(folder, drivers="null0,cpu0,models,files") as kernel:
        kernel.tuning()
        program = kernel.program()
        model = program.call("load_model", path="/models/tiny", device=program.grants["null0"])["handle"]
        program.call("load_model", path="/models/big", device=program.grants["cpu0"])
        error = refused(program, model, TAUGHT)
        assert isinstance(error, BadArgument) and "big is on cpu0; the recipe needs it on null0" in str(error)
        other = program.call("load_model", path="/models/other", device=program.grants["null0"])["handle"]
        adapter(program, other)
        error = refused(program, model, {"orthogonal": {"to": ["old"]}})
        assert isinstance(error, BadArgument)
        assert "old is an adapter of other; the recipe needs it beside tiny" in str(error)


@pytest.mark.parametrize(("rights", "error"), [('["read"]', Denied), ("[]", NotFound)])
def test_what_a_program_may_not_use_it_cannot_name(folder: Path, rights: str, error: type[LlmosError]) -> None:
    settings = f'[policy.default.handles]\nsystem = "all"\ndevice = "all"\ntask = "all"\nmodel = {rights}\n'
    with inside(folder, settings, drivers="null0,models,files") as kernel:
        kernel.tuning()
        kernel.program().load("big")
        stranger = kernel.program(Peer(12345, 12345, os.getpid()))
        model = kernel.kernel.models.named("big")
        assert model is not None
        with pytest.raises(error, match="big"):
            find(kernel.kernel, kernel.session(stranger), model, TuneRecipe(method="lora", options=TAUGHT))


def test_they_are_found_again_by_the_next_kernel(folder: Path) -> None:
    with inside(folder, drivers="null0,models,files") as first:
        first.tuning()
        program = first.program()
        model = program.load("tiny")
        program.load("big")
        adapter(program, model)
        task = begin(program, model, BOTH)
        first.null.event(TuneProgress(id=task["id"], step=2, steps=4, values={"loss": 0.5}, stage="checkpoint"))
    with inside(folder, drivers="null0,models,files") as second:
        second.tuning()
        second.kernel.tunes.boot()
        second.settle()
        assert begun(second)["models"] == {name: object_of(second, name).host_id for name in ("big", "old")}
        assert object_of(second, "old").base is object_of(second, "tiny")
        program = second.program()
        (found,) = program.call("list_objects", system=program.system, kind="task")
        ends(second, task)
        assert result(program, found)["state"] == "done"

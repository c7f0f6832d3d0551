"""What is loaded by a result's name goes over to it, and says why where it does not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from scripted import Inside, Program, located
from tuning_tasks import begin, ends, result

from llmos.kernel.objects import ModelObject
from llmos.syscalls.driver import Version
from llmos.syscalls.errors import NoDeviceMemory


def named(kernel: Inside) -> ModelObject:
    found = kernel.kernel.models.named("mine")
    assert found is not None
    return found


def codes(kernel: Inside, about: str) -> dict[str, str]:
    return {reason.code: reason.text for reason in kernel.kernel.decisions.of(about)}


def adapter(program: Program, model: int, path: str) -> int:
    handle: int = program.call("load_model", path=path, base=model, options={"name": "mine"})["handle"]
    return handle


@pytest.fixture
def mine(program: Program, model: int) -> int:
    """An older version of what is going to be made."""
    return adapter(program, model, "/models/mine")


def tuned(kernel: Inside, program: Program, model: int, **fields: Any) -> dict[str, Any]:
    """A task that ends, after which its name means version 2."""
    task = begin(program, model, "/models/mine@2", **fields)
    kernel.models.answers["commit"] = Version(version="2")
    kernel.models.answers["locate"] = lambda body: located({"path": f"{body['path'].partition('@')[0]}@2"})
    ends(kernel, task)
    result(program, task)
    return task


def test_it_takes_the_name_and_keeps_base_and_options(kernel: Inside, program: Program, model: int, mine: int) -> None:
    before = named(kernel)
    task = tuned(kernel, program, model)
    after = named(kernel)
    assert (before.version, after.version) == ("1", "2") and after.base is before.base and after.id != before.id
    assert before.id not in kernel.kernel.models.by_id, "nothing ran on it"
    text = codes(kernel, task["id"])["model.swapped"]
    assert text == f"mine went from version 1 to 2, which {task['id']} has made"


def test_a_candidate_and_a_fixed_version_change_nothing(kernel: Inside, program: Program, model: int) -> None:
    adapter(program, model, "/models/mine@1")
    before = named(kernel)
    tuned(kernel, program, model)
    assert named(kernel) is before


def test_a_base_with_adapters_stays_with_them(kernel: Inside, program: Program, model: int) -> None:
    other = program.load("mine")
    program.call("load_model", path="/models/beside", base=other)
    task = tuned(kernel, program, model)
    assert named(kernel).version == "1"
    assert "adapters, which would leave with it: beside" in codes(kernel, task["id"])["tune.unserved"]


def test_what_is_not_good_enough_serves_nobody(kernel: Inside, program: Program, model: int, mine: int) -> None:
    task = tuned(kernel, program, model, promote_if="loss < 0")
    assert named(kernel).version == "1" and set(codes(kernel, task["id"])) >= {"tune.candidate"}


def test_one_that_cannot_go_over_serves_what_it_did(kernel: Inside, program: Program, model: int, mine: int) -> None:
    kernel.null.answers["load"] = NoDeviceMemory("full", needed=9, free=1)
    task = tuned(kernel, program, model)
    assert named(kernel).version == "1"
    assert codes(kernel, task["id"])["tune.unserved"].startswith("mine still serves version 1: full")


def test_a_program_that_may_not_manage_it_cannot_exchange_it(
    kernel: Inside, program: Program, model: int, mine: int
) -> None:
    (session,) = kernel.kernel.sessions.by_id.values()
    session.ambient = False
    task = tuned(kernel, program, model)
    assert named(kernel).version == "1" and "may not manage it" in codes(kernel, task["id"])["tune.unserved"]


def after_the_program(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    """The task ends when the program has ended that began it."""
    kernel.models.answers["commit"] = Version(version="2")
    kernel.models.answers["locate"] = lambda body: located({"path": f"{body['path'].partition('@')[0]}@2"})
    named(kernel).options = replace(named(kernel).options, keep_alive=-1)
    (session,) = kernel.kernel.sessions.by_id.values()
    kernel.kernel.sessions.close(session, "the test says so")
    ends(kernel, task)
    kernel.advance(0.1)


def test_it_goes_over_also_when_the_program_that_began_it_has_ended(
    kernel: Inside, program: Program, model: int, mine: int
) -> None:
    task = begin(program, model, "/models/mine@2")
    after_the_program(kernel, program, task)
    assert named(kernel).version == "2" and "model.swapped" in codes(kernel, task["id"])


def test_a_task_of_a_kernel_before_goes_over_too(kernel: Inside, program: Program, model: int, mine: int) -> None:
    task = begin(program, model, "/models/mine@2")
    found = kernel.kernel.tunes.of(kernel.kernel.objects[task["id"]])
    found.asked = None
    kernel.models.answers["commit"] = Version(version="2")
    kernel.models.answers["locate"] = lambda body: located({"path": f"{body['path'].partition('@')[0]}@2"})
    ends(kernel, task)
    result(program, task)
    assert named(kernel).version == "2" and named(kernel).owner == found.run.owner


def test_what_another_user_has_loaded_stays(kernel: Inside, program: Program, model: int, mine: int) -> None:
    task = begin(program, model, "/models/mine@2")
    named(kernel).owner = "12345"
    after_the_program(kernel, program, task)
    assert named(kernel).version == "1" and "by another user" in codes(kernel, task["id"])["tune.unserved"]


def test_a_program_that_could_not_exchange_it_cannot_by_ending(
    kernel: Inside, program: Program, model: int, mine: int
) -> None:
    (session,) = kernel.kernel.sessions.by_id.values()
    session.ambient = False
    task = begin(program, model, "/models/mine@2")
    after_the_program(kernel, program, task)
    assert named(kernel).version == "1" and "what it was given" in codes(kernel, task["id"])["tune.unserved"]

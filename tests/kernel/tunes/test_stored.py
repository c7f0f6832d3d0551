"""A result is stored once, also when the kernel or the driver of models ends between its commit and its record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import Inside, Program, inside
from tuning_tasks import begin, ends, record, result

from llmos.syscalls.errors import BadModel, Conflict, LlmosError, NotFound, PeerGone
from llmos.syscalls.types import Entry

Answer = Callable[[dict[str, Any]], Entry | LlmosError]


def holding(**runs: str | LlmosError) -> Answer:
    """A catalogue with one model, whose versions come of these runs, the last being current; or tell of an error."""

    def answer(body: dict[str, Any]) -> Entry | LlmosError:
        asked = body["path"].partition("@")[2].replace(".", "_") or [*runs][-1]
        found = runs.get(asked, NotFound("no such version"))
        if isinstance(found, LlmosError):
            return found
        fields: dict[str, Any] = {"versions": [*runs]} | ({"run": found} if found else {})
        return Entry(path=body["path"], kind="model", version=asked, fields=fields)

    return answer


@pytest.fixture
def task(program: Program, model: int) -> dict[str, Any]:
    return begin(program, model)


def test_the_manifest_of_a_result_names_its_run(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    ends(kernel, task)
    assert result(program, task)["value"]["version"] == "1"
    assert kernel.models.last("commit")["manifest"]["run"] == task["id"]


@pytest.mark.parametrize("out", ["/models/mine", "/models/mine@v2"])
@pytest.mark.parametrize("rule", ["", "loss < 0.1"])
def test_a_result_that_is_stored_already_is_not_stored_again(
    kernel: Inside, program: Program, model: int, out: str, rule: str
) -> None:
    """Whatever it was stored as; another one may be current since."""
    task = begin(program, model, out, promote_if=rule)
    kernel.models.answers |= {"stat": holding(v1="", v2=task["id"], v3="t-other"), "stage": Conflict("no")}
    before = kernel.models.names().count("stage")
    ends(kernel, task)
    assert result(program, task)["value"]["version"] == "v2" == record(kernel, task).version
    assert kernel.models.names().count("stage") == before and "commit" not in kernel.models.names()


def test_what_another_run_has_stored_is_in_the_way(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    """And what is damaged, or was removed meanwhile, is nobody's."""
    broken, gone = BadModel("broken", file="a", why="cut off"), NotFound("removed")
    kernel.models.answers |= {"stat": holding(v1=broken, v2=gone, v3="t-other"), "commit": Conflict("no")}
    ends(kernel, task)
    assert result(program, task)["value"]["error"]["name"] == "Exists"


def test_a_kernel_that_ended_before_its_record_finds_the_result(folder: Path) -> None:
    with inside(folder, drivers="null0,models,files") as first:
        first.tuning()
        program = first.program()
        task = begin(program, program.load("tiny"))
        first.models.holds.add("commit")  # it is done, and the kernel never hears of that
        ends(first, task)
        first.settle()
        file = first.config.paths.home / "runs" / f"{task['id']}.json"
        as_it_was = file.read_bytes()
    file.write_bytes(as_it_was)  # one that is killed notes nothing at its end
    with inside(folder, drivers="null0,models,files") as second:
        second.tuning()
        second.models.answers |= {"stat": holding(v1=task["id"]), "commit": Conflict("is now v1", version="v1")}
        second.kernel.tunes.boot()
        second.settle()
        program = second.program()
        (found,) = program.call("list_objects", system=program.system, kind="task")
        ends(second, task)
        told = result(program, found)
        assert (told["state"], told["value"]["version"]) == ("done", "v1")


def test_a_driver_of_models_that_ends_while_it_stores(kernel: Inside, program: Program, task: dict[str, Any]) -> None:
    kernel.models.answers["commit"] = PeerGone("the driver of models ended")
    ends(kernel, task)
    assert result(program, task)["value"]["error"]["name"] == "PeerGone"
    kernel.models.answers |= {"stat": holding(v1=task["id"]), "commit": Conflict("is now v1", version="v1")}
    program.control(task["handle"], "resume")
    ends(kernel, task)
    assert result(program, task)["value"]["version"] == "v1"

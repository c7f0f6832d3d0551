"""The files of a model and of its draft model are found together, and let go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripted import Inside, Program, located

from llmos.syscalls.errors import LlmosError, NotFound, NotSupported


def load(program: Program, draft: str, **options: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = program.call(
        "load_model", path="/models/tiny", options={"draft": f"/models/{draft}", **options}
    )
    return loaded


def refused(program: Program, draft: str) -> LlmosError | None:
    return program.error("load_model", path="/models/tiny", options={"draft": draft})


def test_the_device_gets_the_files_of_both(kernel: Inside, program: Program) -> None:
    info = load(program, "small")
    for call in ("plan", "load"):
        model = kernel.null.last(call)["model"]
        assert (model["path"], model["draft"]["path"], model["draft"]["draft"]) == ("/tiny", "/small", None)
    program.call("unload_model", model=info["handle"])
    assert kernel.models.names() == ["locate", "locate", "release", "release"]


def test_another_draft_model_makes_another_model(kernel: Inside, program: Program) -> None:
    one, two, same = load(program, "small"), load(program, "less", name="second"), load(program, "small")
    assert one["id"] != two["id"] and one["id"] == same["id"]


def test_a_swap_brings_the_draft_model_along(kernel: Inside, program: Program) -> None:
    info = load(program, "small")
    program.control(info["handle"], "swap", to="2")
    model = kernel.null.last("load")["model"]
    assert (model["version"], model["draft"]["path"]) == ("2", "/small")
    assert kernel.models.names().count("release") == 2


def test_a_draft_model_that_is_not_there_keeps_nothing(kernel: Inside, program: Program) -> None:
    kernel.models.answers["locate"] = lambda body: NotFound("no") if "none" in body["path"] else located(body)
    assert isinstance(refused(program, "/models/none"), NotFound)
    assert kernel.models.names() == ["locate", "locate", "release"] and not kernel.null.names()


def test_a_draft_model_of_another_file_system_is_refused(kernel: Inside, program: Program, tmp_path: Path) -> None:
    kernel.files.answers["locate"] = located
    program.call("mount_fs", system=program.grants["system"], path="/mine", filesystem="files", source=str(tmp_path))
    error = refused(program, "/mine/small")
    assert isinstance(error, NotSupported) and "put both in one place" in str(error)
    assert kernel.models.names() == ["locate", "release"] and kernel.files.names()[-2:] == ["locate", "release"]


def test_the_file_system_hears_what_requests_have_shown(kernel: Inside, program: Program) -> None:
    def told() -> list[Any]:
        return [body["options"] for name, body in kernel.models.calls if name == "fs_control"]

    kernel.null.holds.clear()
    info = program.call("load_model", path="/models/tiny")
    model = next(iter(kernel.kernel.models.by_id.values()))
    program.control(info["handle"], "sleep")
    assert told() == [], "without requests there is nothing to say"
    program.control(info["handle"], "wake")
    model.speed.first_token_s = 0.25
    program.control(info["handle"], "sleep")
    [first] = told()
    assert (first["name"], first["version"], first["device"]) == ("/tiny", "1", "null0")
    assert first["values"]["first_token_s"] == 0.25
    assert kernel.models.last("fs_control")["source"] == model.located.source != ""
    program.control(info["handle"], "wake")
    program.control(info["handle"], "swap", to="2")
    assert len(told()) == 2
    model.speed.first_token_s = 0.5
    kernel.models.dies()
    program.call("unload_model", model=info["handle"])
    assert len(told()) == 2, "a file system that is down hears nothing"

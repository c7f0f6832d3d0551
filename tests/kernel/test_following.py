"""Loaded models follow the names they were loaded by; who may say so, and what stays when it fails."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scripted import Inside, Program, inside, located

from llmos.kernel.session import Peer
from llmos.syscalls.errors import BadModel, Denied


@pytest.fixture
def means(kernel: Inside) -> dict[str, str]:
    """What aliases and bare names of models mean, by path."""
    table = {"/tiny@best": "1", "/tiny": "1", "/tiny@latest": "1"}

    def locate(body: Mapping[str, Any]) -> Any:
        version = table.get(body["path"])
        found = located({"path": f"{body['path'].partition('@')[0]}@{version}"} if version else body)
        return BadModel(f"{body['path']} is broken", file="f", why="broken") if version == "bad" else found

    kernel.models.answers["locate"] = locate
    return table


def alias(kernel: Inside, means: dict[str, str], version: str) -> None:
    """The file system is asked to let `best` mean a version."""
    means["/tiny@best"] = version
    kernel.models.answers["fs_control"] = {"fields": {"name": "/tiny", "aliases": {"best": version}}}


def versions(program: Program, *handles: int) -> list[str]:
    return [program.call("stat_object", handle=handle)["fields"]["version"] for handle in handles]


def test_an_alias_takes_those_along_that_were_loaded_by_it(
    kernel: Inside, program: Program, means: dict[str, str]
) -> None:
    fox, fixed = program.load("tiny@best", name="fox"), program.load("tiny@7", name="fixed")
    alias(kernel, means, "2")
    info = program.control(program.grants["/models"], "alias", name="tiny", alias="best", version="2", reload=True)
    assert kernel.models.last("fs_control")["options"] == {"name": "tiny", "alias": "best", "version": "2"}
    assert info["fields"]["report"]["reloaded"] == [{"model": "fox", "from": "1", "to": "2"}]
    assert versions(program, fox, fixed) == ["2", "7"]
    assert program.call("stat_object", handle=fox)["fields"]["path"] == "/models/tiny@best"
    assert kernel.null.names()[-1] == "unload"
    again = program.control(program.grants["/models"], "alias", name="tiny", alias="best", version="2", reload=True)
    assert again["fields"]["report"]["reloaded"] == []


def test_a_rollback_takes_those_along_that_name_no_version(
    kernel: Inside, program: Program, means: dict[str, str]
) -> None:
    means["/tiny"] = "2"
    plain, other = program.load("tiny", name="plain"), program.load("other")
    means["/tiny"] = "1"
    kernel.models.answers["fs_control"] = {"fields": {"name": "/tiny", "version": "1", "was": "2"}}
    info = program.control(program.grants["/models"], "rollback", name="/tiny", reload=True)
    assert info["fields"]["report"]["reloaded"] == [{"model": "plain", "from": "2", "to": "1"}]
    assert versions(program, plain, other) == ["1", "1"]


def test_an_adapter_goes_over_as_well_and_requests_find_it_by_its_name(
    kernel: Inside, program: Program, means: dict[str, str]
) -> None:
    means["/tone"] = "2"
    base = program.load("tiny", name="base")
    load = {"path": "/models/tone", "base": base, "options": {"name": "tone"}}
    old = program.call("load_model", **load)["handle"]
    means["/tone"] = "1"
    kernel.models.answers["fs_control"] = {"fields": {"name": "/tone", "version": "1", "was": "2"}}
    info = program.control(program.grants["/models"], "rollback", name="/tone", reload=True)
    assert info["fields"]["report"]["reloaded"] == [{"model": "tone", "from": "2", "to": "1"}]
    found = kernel.kernel.models.named("tone")
    assert found is not None and (found.version, found.base) == ("1", kernel.kernel.models.named("base"))
    assert program.state(base) == "awake" and old


def test_without_reload_and_without_a_version_everything_stays(
    kernel: Inside, program: Program, means: dict[str, str]
) -> None:
    fox = program.load("tiny@best", name="fox")
    alias(kernel, means, "2")
    info = program.control(program.grants["/models"], "alias", name="tiny", alias="best", version="2")
    assert "reloaded" not in info["fields"]["report"]
    kernel.models.answers["fs_control"] = {"fields": {"name": "/tiny", "aliases": {}}}
    info = program.control(program.grants["/models"], "alias", name="tiny", alias="best", version="", reload=True)
    assert info["fields"]["report"]["reloaded"] == [] and versions(program, fox) == ["1"]


def test_a_broken_version_leaves_the_old_one_serving_and_says_so(
    kernel: Inside, program: Program, means: dict[str, str]
) -> None:
    handles = [program.load("tiny@best", name=name, max_context=size) for name, size in (("a", 8), ("b", 16))]
    alias(kernel, means, "bad")
    error = program.control_error(program.grants["/models"], "alias", name="tiny", alias="best", reload=True)
    assert isinstance(error, BadModel) and "means version bad now, but a still serves 1: " in str(error)
    assert versions(program, *handles) == ["1", "1"]
    records = program.call("read_journal", system=program.system, level="warning")
    assert [r["text"].partition(":")[0] for r in records] == [f"{name} still serves version 1" for name in "ab"]


def test_one_that_sleeps_is_woken_and_goes_over(kernel: Inside, program: Program, means: dict[str, str]) -> None:
    fox = program.load("tiny@best", name="fox")
    program.control(fox, "sleep")
    alias(kernel, means, "2")
    program.control(program.grants["/models"], "alias", name="tiny", alias="best", reload=True)
    assert (versions(program, fox), program.state(fox)) == (["2"], "awake")


def test_a_model_of_a_mount_that_is_not_here_is_not_meant(
    kernel: Inside, program: Program, means: dict[str, str]
) -> None:
    made = program.call("mount_fs", system=program.system, path="/more", filesystem="models", source="/elsewhere")
    number = program.send("load_model", path="/more/tiny@best", options={"name": "there"})
    fox = program.wait(number).value["handle"]
    program.call("close_handle", handle=made["handle"])
    alias(kernel, means, "2")
    program.control(program.grants["/models"], "alias", name="tiny", alias="best", reload=True)
    assert versions(program, fox) == ["1"]


def test_models_of_others_are_not_exchanged(folder: Path) -> None:
    settings = (
        '[policy.default]\nmounts = {"/models" = "rw"}\n[policy.default.handles]\nsystem = "all"\ndevice = "all"\n'
    )
    with inside(folder, settings, drivers="null0,models") as kernel:
        program, stranger = kernel.program(), kernel.program(Peer(12345, 12345, os.getpid()))
        program.load("tiny@best")
        error = stranger.control_error(
            stranger.grants["/models"], "alias", name="tiny", alias="best", version="2", reload=True
        )
        assert isinstance(error, Denied) and error.missing == "manage"
        assert "fs_control" not in kernel.models.names()

"""Files and mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scripted import Inside, Program, inside

from llmos.kernel.session import Peer
from llmos.syscalls.errors import BadArgument, Denied, Exists, NotFound


def mount(program: Program, **body: object) -> dict:
    arguments = {"path": "/extra", "filesystem": "files", "source": "/srv", **body}
    value: dict = program.call("mount_fs", system=program.system, **arguments)
    return value


def mount_error(program: Program, **body: object) -> object:
    arguments = {"path": "/extra", "filesystem": "files", "source": "/srv", **body}
    return program.error("mount_fs", system=program.system, **arguments)


def test_a_mount_appears_and_goes_with_its_handle(kernel: Inside, program: Program) -> None:
    found = mount(program)
    assert (found["path"], found["source"], found["mode"]) == ("/extra", "/srv", "ro")
    assert (kernel.files.last("stat")["source"], kernel.files.last("stat")["path"]) == ("/srv", "/")
    assert program.call("stat_object", handle=found["handle"])["fields"]["path"] == "/extra"
    assert "extra" in program.names("/")
    program.call("close_handle", handle=found["handle"])
    assert "extra" not in program.names("/")


def test_a_mount_is_seen_by_its_session_only(kernel: Inside, program: Program) -> None:
    mount(program)
    assert "extra" not in kernel.program().names("/")


def test_what_is_taken_cannot_be_mounted_over(program: Program) -> None:
    mount(program)
    assert isinstance(mount_error(program), Exists)


def test_a_source_that_cannot_be_opened_is_refused_at_once(kernel: Inside, program: Program) -> None:
    kernel.files.answers["stat"] = NotFound("no folder /srv")
    assert isinstance(mount_error(program), NotFound)
    assert "extra" not in program.names("/")


@pytest.mark.parametrize("name", ["nothing", "null0"])
def test_only_file_systems_can_be_mounted(program: Program, name: str) -> None:
    error = mount_error(program, filesystem=name)
    assert isinstance(error, NotFound) and "no filesystem driver" in str(error)


def test_a_bad_path_is_refused(program: Program) -> None:
    assert isinstance(mount_error(program, path="/a/../b"), BadArgument)


def test_another_user_may_mount_nothing(folder: Path) -> None:
    with inside(folder, '[policy.default.handles]\nsystem = "all"\n', drivers="files") as kernel:
        stranger = kernel.program(Peer(12345, 12345, os.getpid()))
        error = mount_error(stranger)
        assert isinstance(error, Denied) and error.missing == "uid"


def test_files_of_a_driver_are_opened_read_and_written(kernel: Inside, program: Program) -> None:
    file = program.call("open_file", path="/home/a/b", mode="w", expected_version="v0")
    assert kernel.files.last("open")["path"] == "/a/b" and kernel.files.last("open")["expected_version"] == "v0"
    assert (file["version"], file["bytes"]) == ("v1", 10)
    assert program.call("write_file", file=file["handle"], offset=0, data=b"abc")["count"] == 3
    assert program.call("read_file", file=file["handle"], offset=0, count=10)["data"] == b"0123456789"


def test_a_file_opened_to_read_cannot_be_written(program: Program) -> None:
    file = program.call("open_file", path="/home/x")["handle"]
    error = program.error("write_file", file=file, offset=0, data=b"x")
    assert isinstance(error, Denied) and error.missing == "write"


def test_paths_can_be_described_removed_and_searched(kernel: Inside, program: Program) -> None:
    assert program.call("stat_path", path="/home/x")["path"] == "/home/x"
    program.call("remove_path", path="/home/x")
    assert kernel.files.last("remove")["path"] == "/x"
    kernel.files.answers["search"] = [{"path": "/notes", "score": 0.5}]
    hits = program.call("search_fs", path="/home", query="words", filters={"a": 1}, limit=3)
    assert hits[0]["path"] == "/home/notes"
    assert kernel.files.last("search")["filters"] == {"a": 1}

"""List, describe and act on objects."""

from __future__ import annotations

import os

from scripted import Inside, Program, inside

from llmos.kernel.session import Peer
from llmos.syscalls.errors import BadArgument, Denied, NotFound, NotSupported

STRANGER = Peer(12345, 12345, os.getpid())


def test_a_list_gives_a_handle_to_each_object_once(program: Program) -> None:
    first = program.call("list_objects", system=program.system, kind="driver")
    again = program.call("list_objects", system=program.system, kind="driver")
    assert sorted(o["name"] for o in first) == ["files", "models", "null0"]
    assert [o["handle"] for o in first] == [o["handle"] for o in again]


def test_a_list_can_be_narrowed_by_name_or_id(program: Program) -> None:
    def listed(prefix: str) -> list[str]:
        return [o["name"] for o in program.call("list_objects", system=program.system, kind="driver", prefix=prefix)]

    assert listed("null") == ["null0"]
    assert listed("driver:fil") == ["files"]
    assert listed("zzz") == []


def test_another_user_sees_only_what_policy_shows(folder) -> None:  # type: ignore[no-untyped-def]
    settings = '[policy.default.handles]\nsystem = ["list", "read"]\n'
    with inside(folder, settings, drivers="null0") as kernel:
        owner, stranger = kernel.program(), kernel.program(STRANGER)
        owner.call("alloc_buffer", system=owner.system, bytes=4096)
        assert len(owner.call("list_objects", system=owner.system, kind="buffer")) == 1
        assert stranger.call("list_objects", system=stranger.system, kind="buffer") == []
        assert stranger.call("list_objects", system=stranger.system, kind="driver") == []


def test_a_model_shows_its_figures(kernel: Inside, program: Program) -> None:
    info = program.call("stat_object", handle=program.load("tiny"))
    assert (info["state"], info["bytes"], info["health"]) == ("awake", 1024, "ok")
    assert info["fields"]["pinned"] is False and info["fields"]["running"] == 0


def test_a_device_shows_what_is_free(program: Program) -> None:
    before = program.call("stat_object", handle=program.grants["null0"])["fields"]["free"]
    program.load("tiny")
    assert before - program.call("stat_object", handle=program.grants["null0"])["fields"]["free"] == 1024


def test_an_unknown_action_names_those_that_exist(program: Program) -> None:
    error = program.control_error(program.grants["null0"], "explode")
    assert isinstance(error, NotSupported) and "limit" in str(error)
    error = program.control_error(program.system, "explode")
    assert "it has none" in str(error)


def test_an_action_needs_its_right(program: Program) -> None:
    copy = program.call("dup_handle", handle=program.grants["null0"], rights=["read"])["handle"]
    error = program.control_error(copy, "limit", bytes=1)
    assert isinstance(error, Denied) and error.missing == "manage"


def test_options_are_checked(program: Program) -> None:
    device = program.grants["null0"]
    assert "unknown option 'size'" in str(program.control_error(device, "limit", size=1))
    assert "'bytes' is missing" in str(program.control_error(device, "limit"))
    error = program.control_error(device, "limit", bytes="many")
    assert isinstance(error, BadArgument) and error.name == "bytes"


def test_what_a_file_system_reports_is_shown(kernel: Inside, program: Program) -> None:
    kernel.models.answers["fs_control"] = {"fields": {"damaged": 2}}
    info = program.control(program.grants["/models"], "fsck")
    assert info["fields"]["report"] == {"damaged": 2}


def test_what_a_driver_tells_of_its_device_is_shown(kernel: Inside, program: Program) -> None:
    kernel.null.answers["inspect"] = {"fields": {"add": "torch"}}
    copy = program.call("dup_handle", handle=program.grants["null0"], rights=["read"])["handle"]
    assert program.control(copy, "inspect", topic="ops")["fields"]["report"] == {"add": "torch"}
    assert kernel.null.last("inspect")["topic"] == "ops"
    kernel.null.answers["inspect"] = NotSupported("nothing about weather", why="")
    assert isinstance(program.control_error(copy, "inspect", topic="weather"), NotSupported)


def test_an_object_that_ended_is_not_found(kernel: Inside, program: Program) -> None:
    handle = program.grants["null0"]
    kernel.kernel.objects.pop("device:null0")
    assert isinstance(program.error("stat_object", handle=handle), NotFound)

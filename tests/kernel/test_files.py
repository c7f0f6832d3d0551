"""The namespace as files: mounts, pages, buffers, drivers that restart."""

from __future__ import annotations

import dataclasses

import pytest
from scripted import Inside, Program

from llmos.syscalls.errors import (
    BadArgument, BadHandle, NoSpace, NotFound, NotSupported, OverQuota, PeerGone, ReadOnly, TooLarge, WrongKind,
)  # fmt: skip
from llmos.syscalls.types import BufferRef, Data

KIB64 = 64 << 10


def opened(program: Program, mode: str = "r", size: int = 10) -> int:
    return int(program.call("open_file", path="/home/x", mode=mode)["handle"])


def test_the_root_shows_what_is_mounted(program: Program) -> None:
    assert program.names("/") == ["dev", "home", "models", "proc", "sys"]
    assert program.call("stat_path", path="/")["kind"] == "folder"
    assert [e["path"] for e in program.call("list_dir", path="/", after="/models")] == ["/proc", "/sys"]


def test_nothing_lies_outside_the_mounts(program: Program) -> None:
    for call in ("list_dir", "stat_path", "open_file", "remove_path"):
        assert isinstance(program.error(call, path="/nowhere/x"), NotFound)


def test_a_mount_below_another_shows_in_its_list(kernel: Inside, program: Program) -> None:
    program.call("mount_fs", system=program.system, path="/home/deep/inner", filesystem="files", source="/srv")
    kernel.files.answers["list"] = [{"path": "/a", "kind": "file"}, {"path": "/deep", "kind": "file"}]
    entries = program.call("list_dir", path="/home")
    assert [(e["path"], e["kind"]) for e in entries] == [("/home/a", "file"), ("/home/deep", "folder")]
    assert program.call("stat_path", path="/home/deep")["path"] == "/home/deep"


def test_a_mounted_folder_is_called_as_the_program_does(kernel: Inside, program: Program) -> None:
    assert program.call("stat_path", path="/models")["path"] == "/models"
    assert program.call("stat_path", path="/models/x/")["path"] == "/models/x"


def test_errors_of_a_file_system_name_the_path_of_the_program(kernel: Inside, program: Program) -> None:
    program.call("mount_fs", system=program.system, path="/home/deep", filesystem="files", source="/", mode="rw")
    for call, more in {
        "list_dir": {}, "stat_path": {}, "open_file": {}, "remove_path": {}, "search_fs": {"query": "x"},
    }.items():  # fmt: skip
        host = call.partition("_")[0]
        for path, inner, said in (
            ("/home/x", "/x", "no '/x': /x/y, /x@2; or/x"), ("/home/deep", "/", "/ is not; /@2 (/)"),
        ):  # fmt: skip
            kernel.files.answers[host] = NotFound(said)
            told = str(program.error(call, path=path, **more))
            wanted = {"/x": "no '/home/x': /x/y, /home/x@2; or/x", "/": "/home/deep is not; /home/deep@2 (/home/deep)"}
            assert told == wanted[inner]


def test_so_do_errors_of_open_files(kernel: Inside, program: Program) -> None:
    file = program.call("open_file", path="/home/deep/x", mode="w")["handle"]
    said, told = "no space is left for /deep/x in /deep", "no space is left for /home/deep/x in /home/deep"
    kernel.files.answers.update(read=NoSpace(said), write=NoSpace(said), close=NoSpace(said))
    buffer = program.call("alloc_buffer", system=program.system, bytes=KIB64 * 2)["handle"]
    part = {"buffer": buffer, "offset": 0, "length": KIB64 * 2}
    assert str(program.error("write_file", file=file, offset=0, data=b"x")) == told
    assert str(program.error("write_file", file=file, offset=0, data=part)) == told
    assert str(program.error("read_file", file=file, offset=0, count=1)) == told
    assert str(program.error("read_file", file=file, offset=0, count=KIB64 + 1)) == told
    assert str(program.error("close_handle", handle=file)) == told


@pytest.mark.parametrize("name", ["org/m", "/org/m"])
def test_so_do_errors_of_upkeep(kernel: Inside, program: Program, name: str) -> None:
    kernel.models.answers["fs_control"] = NotFound("/org/m has no version 'v9'; /org/m@v1 and /org are there")
    error = program.control_error(program.grants["/models"], "rollback", name=name)
    assert str(error) == "/models/org/m has no version 'v9'; /models/org/m@v1 and /models/org are there"
    kernel.models.answers["fs_control"] = ReadOnly("/ cannot be changed")
    assert str(program.control_error(program.grants["/models"], "gc")) == "/models cannot be changed"


def test_long_folders_come_in_pages(kernel: Inside, program: Program) -> None:
    kernel.files.answers["list"] = [{"path": f"/d/{n:04}", "kind": "file"} for n in range(1200)]
    first = program.call("list_dir", path="/home/d")
    assert len(first) == 1000
    program.call("list_dir", path="/home/d", after=first[-1]["path"])
    assert kernel.files.last("list")["after"] == "/d/0999"


def test_what_the_kernel_makes_is_only_read(program: Program) -> None:
    assert isinstance(program.error("open_file", path="/sys/version", mode="w"), ReadOnly)
    assert isinstance(program.error("remove_path", path="/sys/version"), ReadOnly)
    assert isinstance(program.error("search_fs", path="/sys", query="x"), NotSupported)
    assert isinstance(program.control_error(program.grants["/sys"], "fsck"), NotSupported)


def test_what_the_kernel_makes_is_not_written_even_on_a_writable_mount(kernel: Inside, program: Program) -> None:
    mounts = kernel.session(program).mounts
    mounts.mount(dataclasses.replace(mounts.unmount("/sys"), mode="rw"))
    assert isinstance(program.error("open_file", path="/sys/version", mode="w"), ReadOnly)
    assert isinstance(program.error("remove_path", path="/sys/version"), NotSupported)


def test_a_long_text_of_the_kernel_is_read_in_pieces(kernel: Inside, program: Program) -> None:
    for _ in range(300):
        kernel.kernel.log("test", "x" * 1000)
    file = program.call("open_file", path="/sys/journal")
    pieces, at = b"", 0
    while True:
        data = program.call("read_file", file=file["handle"], offset=at, count=1 << 20)
        pieces, at = pieces + data["data"], at + len(data["data"])
        assert len(data["data"]) <= KIB64
        if data["eof"]:
            break
    assert len(pieces) == file["bytes"] > 300_000
    program.call("close_handle", handle=file["handle"])


def test_small_reads_come_in_the_message(kernel: Inside, program: Program) -> None:
    file = opened(program)
    assert program.call("read_file", file=file, offset=4, count=100)["data"] == b"0123456789"
    assert kernel.files.last("read")["count"] == 6


def test_large_reads_come_in_a_buffer(kernel: Inside, program: Program) -> None:
    kernel.files.answers["open"] = {"token": "f", "bytes": 1 << 20, "version": "1"}
    kernel.files.answers["read"] = Data(data=BufferRef(buffer=0, offset=0, length=100_000), eof=True)  # type: ignore[arg-type]
    data = program.call("read_file", file=opened(program), offset=0, count=100_000)
    assert data["data"]["length"] == 100_000 and kernel.files.last("read")["into"]["path"] == data["path"]
    assert program.call("stat_object", handle=data["data"]["buffer"])["bytes"] == 100_000
    kernel.files.answers["read"] = Data(data=b"", eof=True)
    assert program.call("read_file", file=opened(program, "w"), offset=0, count=100_000)["data"]["length"] == 0


def test_a_failed_large_read_keeps_no_buffer(kernel: Inside, program: Program) -> None:
    kernel.files.answers["open"] = {"token": "f", "bytes": 1 << 20, "version": "1"}
    kernel.files.answers["read"] = PeerGone("gone")
    file = opened(program)
    assert isinstance(program.error("read_file", file=file, offset=0, count=100_000), PeerGone)
    assert kernel.session(program).buffer_bytes == 0
    program.control(program.handle, "limit", buffer_bytes=4096)
    assert isinstance(program.error("read_file", file=file, offset=0, count=100_000), OverQuota)


def test_large_writes_come_from_a_buffer(kernel: Inside, program: Program) -> None:
    file = opened(program, "w")
    error = program.error("write_file", file=file, offset=0, data=b"x" * (KIB64 + 1))
    assert isinstance(error, TooLarge) and error.limit == KIB64
    buffer = program.call("alloc_buffer", system=program.system, bytes=100_000)
    part = {"type": "buffer", "buffer": buffer["handle"], "offset": 10, "length": 99_990}
    assert program.call("write_file", file=file, offset=5, data=part)["count"] == 99_990
    call = kernel.files.last("write")
    assert (call["source"]["path"], call["source_offset"], call["source_length"]) == (buffer["path"], 10, 99_990)
    assert program.call("stat_object", handle=file)["bytes"] == 99_995
    too_far = program.error("write_file", file=file, offset=0, data={**part, "offset": 11})
    assert isinstance(too_far, BadArgument) and too_far.want == "at most 99989"
    assert isinstance(program.error("write_file", file=file, offset=0, data={**part, "buffer": file}), WrongKind)
    assert isinstance(program.error("write_file", file=file, offset=0, data={**part, "buffer": 999}), BadHandle)


@pytest.mark.parametrize("call", ["read_file", "write_file"])
def test_an_open_file_does_not_survive_its_driver(kernel: Inside, program: Program, call: str) -> None:
    file = opened(program, "w")
    kernel.files.dies()
    kernel.files.starts()
    body = {"count": 1} if call == "read_file" else {"data": b"x"}
    error = program.error(call, file=file, offset=0, **body)
    assert isinstance(error, PeerGone) and "open the file again" in str(error)


def test_file_systems_do_their_upkeep_on_writable_mounts(kernel: Inside, program: Program) -> None:
    assert program.control(program.grants["/models"], "gc", keep=2)["fields"]["report"] == {"done": True}
    assert kernel.models.last("fs_control")["options"] == {"keep": 2}
    mount = program.call("mount_fs", system=program.system, path="/ro", filesystem="models", source="/srv")["handle"]
    assert isinstance(program.control_error(mount, "alias", name="a", alias="b"), ReadOnly)
    assert program.control(mount, "fsck")["fields"]["report"] == {"done": True}
    assert isinstance(program.control_error(mount, "fsck", repair=True), ReadOnly)
    kernel.models.answers["fs_control"] = {"fields": {}}
    assert "report" not in program.control(mount, "fsck")["fields"]

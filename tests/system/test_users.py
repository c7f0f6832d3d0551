"""A second user: kept out in private mode; in shared mode let in as far as policy says, never to what others own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmos.syscalls.errors import BadHandle, Denied, NoResources, NotFound, ReadOnly
from system.kernel_process import KernelProcess, running
from system.model_folder import write_model
from system.puppet import Puppet, puppet
from system.raw_client import RawClient

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user too")

USER, THIRD = 54321, 54322
SHARED = f"""
[listen]
shared = true
[policy.uid.{USER}]
handles = {{system = ["read", "list", "create", "manage"], device = "all"}}
mounts = {{"/models" = "ro", "/home" = "ro"}}
[policy.uid.{THIRD}]
handles = {{system = ["create"]}}
"""


@pytest.fixture(autouse=True)
def reachable(folder: Path) -> Iterator[None]:
    """Other users may pass through the folders of this test run; what is below keeps its own modes."""
    passed = [Path(tempfile.gettempdir()), Path(os.environ["LLMOS_SHM_DIR"])]
    for path in (folder, *passed):
        path.chmod(0o711)
    yield
    for path in passed:
        path.chmod(0o700)


@pytest.fixture
def open_kernel(folder: Path) -> Iterator[KernelProcess]:
    """A kernel that two other users may use."""
    write_model(folder / "home/models/null")
    with running(folder, SHARED) as kernel:
        yield kernel


@pytest.fixture
def owner(open_kernel: KernelProcess) -> Iterator[RawClient]:
    with open_kernel.client("owner") as client:
        client.await_driver("ready")
        yield client


@pytest.fixture
def user(open_kernel: KernelProcess) -> Iterator[Puppet]:
    with puppet(open_kernel.socket, USER) as user:
        yield user


def test_in_private_mode_nobody_else_gets_near_the_socket(folder: Path) -> None:
    with running(folder, drivers="") as kernel, puppet(kernel.socket, USER) as user:
        assert user.do("connect_to", str(kernel.socket)) == "EACCES"
        assert user.do("open_host_file", str(kernel.home / "journal.db")) == "EACCES"


def test_in_private_mode_an_opened_folder_is_not_enough(folder: Path) -> None:
    with running(folder, drivers="") as kernel, puppet(kernel.socket, USER) as user:
        kernel.runtime.chmod(0o711)
        assert user.do("connect_to", str(kernel.socket)) == "EACCES"
        kernel.socket.chmod(0o666)
        with pytest.raises(Denied) as refused:
            user.hello()
        assert refused.value.missing == "policy"  # type: ignore[attr-defined]
        kernel.runtime.chmod(0o700)


def test_in_shared_mode_policy_decides_who_comes_in(open_kernel: KernelProcess, user: Puppet) -> None:
    assert user.hello().session
    with puppet(open_kernel.socket, THIRD + 1) as stranger:
        with pytest.raises(Denied) as refused:
            stranger.hello()
        assert f"user {THIRD + 1} is not in this kernel's policy" in str(refused.value)
        with pytest.raises(Denied):
            stranger.call("stat_object", handle=1)


def test_a_user_gets_what_policy_says_and_no_more(owner: RawClient, user: Puppet) -> None:
    session = user.hello()
    stat = user.call("stat_object", handle=session.system)
    assert set(stat["rights"]) == {"read", "list", "create", "manage"}
    with pytest.raises(Denied):
        user.call("dup_handle", handle=session.system, rights=["read"])
    assert {entry["path"] for entry in user.call("list_dir", path="/")} == {"/home", "/models"}
    with pytest.raises(ReadOnly):
        user.call("open_file", path="/models/x", mode="w")
    with pytest.raises(NotFound):
        user.call("list_dir", path="/proc")


def test_programs_and_folders_of_the_host_are_for_the_kernel_s_own_user(owner: RawClient, user: Puppet) -> None:
    session = user.hello()
    with pytest.raises(Denied) as refused:
        user.call("spawn_program", system=session.system, argv=["id"])
    assert refused.value.missing == "uid"  # type: ignore[attr-defined]
    with pytest.raises(Denied) as refused:
        user.call("mount_fs", system=session.system, path="/mnt", filesystem="models", source="/")
    assert refused.value.missing == "uid"  # type: ignore[attr-defined]


def test_buffers_can_be_opened_by_their_owner_alone(open_kernel: KernelProcess, owner: RawClient, user: Puppet) -> None:
    session = user.hello()
    theirs = user.call("alloc_buffer", system=session.system, bytes=100)["path"]
    mine = owner.call("alloc_buffer", system=owner.system, bytes=100)["path"]
    with puppet(open_kernel.socket, THIRD) as third:
        third.hello()
        assert third.do("open_host_file", mine) == "EACCES"
        assert third.do("open_host_file", theirs) == "EACCES"
        assert third.do("open_host_file", str(open_kernel.buffers)) == "EACCES"
    assert user.do("open_host_file", mine) == "EACCES"
    assert user.do("open_host_file", theirs) == ""


def test_objects_of_others_are_not_seen(owner: RawClient, user: Puppet) -> None:
    session = user.hello()
    mine = owner.call("alloc_gpu", device=owner.grants["null0"], bytes=1000)
    task = owner.call("spawn_program", system=owner.system, argv=["sleep", "600"])
    for kind in ("lease", "buffer", "file", "context", "task"):
        assert user.call("list_objects", system=session.system, kind=kind) == []
    seen = user.call("list_objects", system=session.system, kind="session")
    assert [other["id"] for other in seen] == [session.session]
    with pytest.raises(BadHandle):
        user.call("stat_object", handle=mine["handle"] + 1000)
    owner.call("cancel_task", task=task["handle"], grace_s=0)


def test_requests_of_others_cannot_be_cancelled(owner: RawClient, user: Puppet) -> None:
    user.hello()
    number = owner.start(owner.load("null"), "!slow 20; x", ignore_eos=True, max_tokens=2000)
    request = owner.names("/proc/requests")
    for name in request:
        with pytest.raises(NotFound):
            user.call("cancel_task", request=name)
    assert owner.answers[number].kind is None
    owner.cancel(number)
    assert owner.wait(number).value["choices"][0]["reason"] == "cancelled"


def test_models_are_shared_but_not_managed(owner: RawClient, user: Puppet) -> None:
    session = user.hello()
    mine = owner.load("null")
    (seen,) = user.call("list_objects", system=session.system, kind="model")
    answer = user.call("infer", model=seen["handle"], input={"type": "text", "text": "both"})
    assert answer["choices"][0]["text"] == "both"
    with pytest.raises(Denied):
        user.call("unload_model", model=seen["handle"])
    assert owner.infer(mine, "still")["choices"][0]["text"] == "still"


def test_a_token_of_another_user_opens_nothing(owner: RawClient, user: Puppet) -> None:
    with pytest.raises(Denied) as refused:
        user.hello(resume=owner.token)
    assert "no session of this process" in str(refused.value)
    owner.quiet()


AS_USER = """
import os, sys
import importlib.metadata, sqlite3, tempfile, tomllib
import llmos.kernel.store
from llmos.kernel.__main__ import main
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
raise SystemExit(main(sys.argv[2:]))
"""


def test_a_kernel_without_root_refuses_what_only_root_can_do(folder: Path) -> None:
    config = f'[listen]\nshared = true\n[policy.uid.{THIRD}]\nhandles = {{system = "all"}}\n'
    for path in (folder / "home", folder / "run"):
        path.mkdir(mode=0o700)
        os.chown(path, USER, -1)
    shared_memory = Path(os.environ["LLMOS_SHM_DIR"])
    shared_memory.chmod(0o1777)
    command = [sys.executable, "-P", "-c", AS_USER, str(USER)]
    with (
        running(folder, config, drivers="", command=command, uid=USER) as kernel,
        puppet(kernel.socket, USER) as owner,
        puppet(kernel.socket, THIRD) as user,
    ):
        session = owner.hello()
        task = owner.call("spawn_program", system=session.system, argv=["sleep", "600"])["handle"]
        with pytest.raises(Denied):
            owner.call("control_object", handle=task, action="priority", options={"nice": -5})
        owner.call("alloc_buffer", system=session.system, bytes=100)
        other = user.hello()
        with pytest.raises(NoResources):
            user.call("alloc_buffer", system=other.system, bytes=100)
        owner.call("cancel_task", task=task, grace_s=0)

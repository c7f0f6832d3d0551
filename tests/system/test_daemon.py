"""The kernel as a daemon: one per folder, signals, service manager, and its end however it comes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from llmos.syscalls.errors import Cancelled, NoResources, OverQuota
from system.kernel_process import COMMAND, DidNotStart, KernelProcess, readable, running, watched
from system.model_folder import write_model
from system.raw_client import RawClient

# ---- one kernel per folder


def test_a_second_daemon_on_one_folder_refuses_and_the_first_is_unharmed(folder: Path) -> None:
    with running(folder, drivers="") as first, first.client() as client:
        with pytest.raises(DidNotStart) as second:
            KernelProcess(folder, drivers="")
        assert second.value.status == 1
        assert f"a kernel (pid {first.pid}) runs already on {first.runtime}" in second.value.said
        assert "Traceback" not in second.value.said
        client.quiet()
        with first.client() as another:
            another.quiet()


def test_what_a_killed_kernel_left_is_no_obstacle(folder: Path) -> None:
    first = KernelProcess(folder, drivers="")
    with first.client() as client:
        client.call("alloc_buffer", system=client.system, bytes=5000)
        first.process.kill()
        first.ended()
    assert first.socket.exists() and list(first.buffers.iterdir())
    os.close(first.pidfd)
    with running(folder, drivers="") as second, second.client() as client:
        buffer = client.call("alloc_buffer", system=client.system, bytes=5000)
        assert Path(buffer["path"]).read_bytes() == bytes(8192)
        assert len(list(second.buffers.iterdir())) == 1


def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of another user")
    (folder / "run").mkdir()
    os.chown(folder / "run", 65534, -1)
    with pytest.raises(DidNotStart) as refused:
        KernelProcess(folder, drivers="")
    assert refused.value.status == 1
    assert "belongs to another user" in refused.value.said


def test_a_path_too_long_for_a_socket_is_refused(folder: Path) -> None:
    with pytest.raises(DidNotStart) as refused:
        KernelProcess(folder, f'[paths]\nruntime = "/tmp/{"x" * 100}"\n', options=["--runtime", f"/tmp/{'x' * 100}"])
    assert "choose a shorter folder" in refused.value.said


# ---- the end


def test_kill_9_of_the_kernel_takes_its_hosts_with_it(folder: Path) -> None:
    kernel = KernelProcess(folder)
    with kernel.client() as client:
        client.await_driver("ready")
        hosts = [client.host("null0"), client.host("models")]
    with watched(hosts[0]) as first_ends, watched(hosts[1]) as second_ends:
        kernel.process.kill()
        first_ends()
        second_ends()
    kernel.close()
    kernel.clean()


def test_sigterm_lets_running_requests_end(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder) as kernel, kernel.client() as client, kernel.connection() as late:
        number = client.start(client.load("null"), "!slow 150; abcdefghij", "infer_stream")
        client.first_chunk(number)
        kernel.signal(signal.SIGTERM)
        client.await_driver("stopping")
        assert isinstance(late.error("hello", protocol=1, program="late"), NoResources)
        assert client.wait(number).value["choices"][0]["text"] == "abcdefghij"
        assert kernel.ended() == 0


def test_sigterm_answers_what_only_waits(folder: Path) -> None:
    with running(folder, drivers="") as kernel, kernel.client() as client:
        watch = client.send("watch_events", system=client.system)
        task = client.call("spawn_program", system=client.system, argv=["sleep", "600"])
        waiting = client.send("wait_task", task=task["handle"])
        client.quiet()
        kernel.signal(signal.SIGTERM)
        assert client.wait(waiting).value["state"] == "cancelled"
        assert isinstance(client.wait(watch).error, Cancelled)
        assert kernel.ended() == 0


def test_a_second_sigterm_does_not_wait(folder: Path) -> None:
    write_model(folder / "home/models/null")
    with running(folder, "[limits]\ndrain_s = 3600\n") as kernel, kernel.client() as client:
        number = client.start(client.load("null"), "!late 3600000; x")
        client.quiet()
        kernel.signal(signal.SIGTERM)
        client.await_driver("stopping")
        kernel.signal(signal.SIGTERM)
        assert kernel.ended() == 0
        assert isinstance(client.wait(number).error, Cancelled)


def test_a_stop_while_hosts_start_leaves_nothing(folder: Path) -> None:
    with running(folder):
        pass


def test_a_stop_while_a_host_waits_for_its_restart_leaves_nothing(folder: Path) -> None:
    config = '[drivers.null0.config]\nfaults = ["crash"]\n'
    with running(folder, config, drivers="null0") as kernel, kernel.client() as client:
        client.await_driver("backoff")


def test_the_end_of_the_parent_is_the_end_of_everything(folder: Path) -> None:
    parent = subprocess.Popen(["sleep", "600"])
    kernel = KernelProcess(folder, options=["--parent", str(parent.pid)])
    with kernel.client() as client:
        client.call("alloc_buffer", system=client.system, bytes=1)
        task = client.call("spawn_program", system=client.system, argv=["sh", "-c", "sleep 600 & wait"])
        program = client.call("stat_object", handle=task["handle"])["fields"]["pid"]
        with watched(program) as program_ends, watched(client.host()) as host_ends:
            parent.kill()
            parent.wait()
            program_ends()
            host_ends()
        assert kernel.ended() == 0
    assert kernel.left() == []
    kernel.close()


def test_a_parent_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises(DidNotStart) as refused:
        KernelProcess(folder, drivers="", options=["--parent", str(2**22 - 1)])
    assert "there is no such process" in refused.value.said


# ---- the configuration, read again


def sessions_limit(kernel: KernelProcess, limit: str) -> None:
    (kernel.home / "config.toml").write_text(f"[policy.uid.{os.getuid()}.limits]\nsessions = {limit}\n")


def reloaded(kernel: KernelProcess, client: RawClient, said: str) -> None:
    """Send SIGHUP and wait until the journal says something."""
    kernel.signal(signal.SIGHUP)
    while not any(said in r["text"] for r in client.call("read_journal", system=client.system, after=-1)):
        client.quiet()


def test_sighup_reads_the_policy_again(folder: Path) -> None:
    with running(folder, drivers="") as kernel, kernel.client() as client:
        with kernel.client():
            pass
        sessions_limit(kernel, "1")
        reloaded(kernel, client, "were read again")
        with kernel.connection() as second:
            error = second.error("hello", protocol=1, program="second")
        assert isinstance(error, OverQuota)
        assert (error.what, error.limit) == ("sessions", 1)


def test_sighup_with_a_broken_file_changes_nothing(folder: Path) -> None:
    with running(folder, drivers="") as kernel, kernel.client() as client:
        sessions_limit(kernel, "'many'")
        reloaded(kernel, client, "the configuration was not taken over")
        with kernel.client() as second:
            second.quiet()


# ---- under a service manager


def test_ready_is_announced_when_calls_are_accepted(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        with running(folder, drivers="", environ={"NOTIFY_SOCKET": str(folder / "notify")}) as kernel:
            assert kernel.announcement == f"READY {kernel.pid}\n"
            assert readable(manager.fileno())
            assert b"READY=1" in manager.recv(100).split(b"\n")


def test_ready_is_announced_to_an_abstract_address(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + str(folder))
        with running(folder, drivers="", environ={"NOTIFY_SOCKET": f"@{folder}"}) as kernel:
            assert readable(manager.fileno())
            assert manager.recv(100).endswith(f"MAINPID={kernel.pid}".encode())


def test_a_service_manager_that_does_not_listen_is_no_obstacle(folder: Path) -> None:
    with running(folder, drivers="", environ={"NOTIFY_SOCKET": str(folder / "nobody")}) as kernel:
        kernel.alive()


HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_socket_activation_serves_who_came_before_the_kernel_and_survives_it(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "run/kernel.sock"))
        listening.listen()
        number = listening.fileno()
        command = [sys.executable, "-c", HAND_OVER, str(number), *COMMAND]
        for _ in range(2):
            with RawClient(folder / "run/kernel.sock") as early:
                hello = early.send("hello", protocol=1, program="early")
                kernel = KernelProcess(folder, drivers="", command=command, descriptors=[number])
                early.wait(hello)
                with kernel.client() as late:
                    late.quiet()
                kernel.signal(signal.SIGTERM)
                assert kernel.ended() == 0
                assert kernel.left() == [str(kernel.socket)]
                kernel.close()
